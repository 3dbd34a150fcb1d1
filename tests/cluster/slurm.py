"""A SLURM of its own on this machine: munge, one controller, two nodes; started for a test and ended with it.

Everything it needs lies in one folder, on ports of its own, so that it disturbs no other SLURM. The daemons run in the
foreground as children of this process, and are ended by the ids with which they were started.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.processes import ended

_NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "sinfo")
_START_S = 30
NODES = ("n1", "n2")

_CONF = """
ClusterName=gradstore
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
CryptoType=crypto/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_min_interval=200000,sched_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
InactiveLimit=0
KillWait=2
{nodes}
PartitionName=batch Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""


@dataclass(frozen=True)
class Slurm:
    """A running one; its commands are run with `environment`."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *command: str) -> str:
        """What a command of SLURM prints."""
        ran = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True, timeout=30)
        return ran.stdout

    def jobs(self, state: str = "RUNNING") -> dict[str, str]:
        """Job id -> node, of the jobs in a state."""
        lines = self.run("squeue", "--noheader", "--states", state, "--format", "%i %N").splitlines()
        return {job: node for job, node, *_ in ([*line.split(), ""] for line in lines)}

    def wait_for_jobs(self, count: int, seconds: float = 60, without: frozenset[str] = frozenset()) -> dict[str, str]:
        """The running jobs, other than these, as soon as there are so many."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = {job: node for job, node in self.jobs().items() if job not in without}
            if len(found) >= count:
                return found
            time.sleep(0.2)
        raise TimeoutError(f"{count} jobs were awaited; squeue has:\n{self.run('squeue')}")

    def wait_until_empty(self, seconds: float = 20) -> None:
        """Until no job is left."""
        deadline = time.monotonic() + seconds
        while self.run("squeue", "--noheader").strip():
            if time.monotonic() > deadline:
                raise TimeoutError(f"no job was to be left; squeue has:\n{self.run('squeue')}")
            time.sleep(0.2)


def why_not() -> str | None:
    """Why no SLURM can be started here; None where one can."""
    missing = [name for name in _NEEDED if shutil.which(name, path=_path()) is None]
    if missing:
        return f"SLURM is not installed: there is no {', '.join(missing)}"
    if os.geteuid() != 0:
        return "starting a SLURM needs root"
    try:
        pwd.getpwnam("munge")
    except KeyError:
        return "there is no user munge"
    return None


@contextmanager
def slurm() -> Iterator[Slurm]:
    """Start it, and end it. Raises TimeoutError with the daemons' words where it does not start."""
    with tempfile.TemporaryDirectory(prefix="gradstore-slurm-") as name, ExitStack() as running:
        folder = Path(name)
        folder.chmod(0o755)  # munged runs as another user
        running.enter_context(_munged(folder))
        for name in ("state", *(f"spool.{node}" for node in NODES)):
            (folder / name).mkdir()
        conf = folder / "slurm.conf"
        conf.write_text(_conf(folder))
        environment = {**os.environ, "SLURM_CONF": str(conf), "PATH": _path()}
        for command in (["slurmctld"], *(["slurmd", "-N", node] for node in NODES)):
            running.enter_context(
                _daemon([*command, "-D", "-f", str(conf)], environment, folder / f"{command[-1]}.out")
            )
        found = Slurm(folder, environment)
        _wait_until_idle(found)
        try:
            yield found
        finally:
            subprocess.run(["scancel", "--user", "root"], env=environment, check=False, capture_output=True, timeout=30)
            found.wait_until_empty()


def _conf(folder: Path) -> str:
    ports = iter(_free_ports(3))
    host, controller_port = socket.gethostname(), next(ports)
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={next(ports)} CPUs=2 RealMemory=4000"
        for node in NODES
    )
    return _CONF.format(host=host, controller_port=controller_port, folder=folder, nodes=nodes)


@contextmanager
def _munged(folder: Path) -> Iterator[None]:
    home = folder / "munge"
    home.mkdir(mode=0o711)
    key = home / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o400)
    user = pwd.getpwnam("munge")
    for path in (home, key):
        os.chown(path, user.pw_uid, user.pw_gid)
    files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    options = [f"--{option}={home / file}" for option, file in files.items()]
    command = ["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", "munged", "--foreground", *options]
    with _daemon(command, {**os.environ, "PATH": _path()}, folder / "munged.out"):
        _until((home / "socket").exists, lambda: (folder / "munged.out").read_text())
        yield


@contextmanager
def _daemon(command: list[str], environment: Mapping[str, str], output: Path) -> Iterator[None]:
    with output.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)
        with ended(process):
            yield


def _wait_until_idle(found: Slurm) -> None:
    def idle() -> bool:
        ran = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--format", "%T"], env=found.environment, capture_output=True, text=True
        )
        return ran.stdout.split() == ["idle"] * len(NODES)

    logs = ("munged.out", "slurmctld.out", *(f"{node}.out" for node in NODES))
    _until(idle, lambda: "\n".join(f"{log}:\n{(found.folder / log).read_text()}" for log in logs))


def _until(true: Callable[[], bool], words: Callable[[], str]) -> None:
    deadline = time.monotonic() + _START_S
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"SLURM did not start within {_START_S} s.\n{words()}")
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [found.getsockname()[1] for found in sockets]


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
