"""Batch scripts: they stop, go on and come back as they should, in the shell itself; tests/cluster has a real SLURM.

The systems' own commands are stand-ins here, that write down how they were called.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gradstore_pipelines.recipe import Recipe
from gradstore_pipelines.settings import BuildSettings
from gradstore_pipelines.settings_error import SettingsError
from gradstore_pipelines.submit import SubmitError, job_script, submit
from gradstore_pipelines.submit_settings import SubmitSettings, System

SYSTEMS: tuple[System, ...] = ("slurm", "pbs", "sge", "lsf")


def recipe(**values: Any) -> Recipe:
    build = BuildSettings(source=Path("rows.npy"), store=Path("rows.store"))
    return Recipe(name="rows", description="", build=build, submit=SubmitSettings(**values))


class Job:
    """A script in a folder of its own, where gradstore and the systems' commands are stand-ins."""

    def __init__(self, folder: Path, run: str, **values: Any) -> None:
        self.folder = folder
        self.command("gradstore", run)
        self.command("squeue", 'cat "$(dirname "$0")/state"')
        for name in ("scontrol", "qsub"):
            self.command(name, f'echo {name} "$@" >> "$(dirname "$0")/called"')
        self.command("sleep", "exit 0")
        text = job_script(recipe(**values), ["rows.toml"], folder)
        self.script = folder / "job.sh"
        self.script.write_text(text.replace(f"{sys.executable} -m gradstore_cli", str(folder / "gradstore")))
        self.state = "RUNNING"

    def run(self, *, terminate: bool = False, **environment: str) -> int:
        """The script's exit status; `terminate` sends it a TERM as soon as gradstore runs."""
        (self.folder / "state").write_text(self.state)
        own = {**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", **environment}
        process = subprocess.Popen(["bash", self.script], env=own, cwd="/")
        while terminate and not (self.folder / "running").exists():
            time.sleep(0.01)
        if terminate:
            process.send_signal(signal.SIGTERM)
        return process.wait(30)

    def called(self) -> list[str]:
        file = self.folder / "called"
        return file.read_text().splitlines() if file.exists() else []

    def command(self, name: str, text: str) -> None:
        """A stand-in."""
        file = self.folder / name
        file.write_text(f"#!/usr/bin/env bash\n{text}\n")
        file.chmod(0o755)


FINISHES_THE_SHARD = """
trap 'sleep 0.1; echo finished >> shards; exit 143' TERM
touch running
for _ in $(seq 100); do /bin/sleep 0.1; done
"""


def test_a_job_that_is_warned_finishes_its_shard_and_comes_back(tmp_path: Path) -> None:
    job = Job(tmp_path, FINISHES_THE_SHARD)
    assert job.run(terminate=True) == 143
    assert (tmp_path / "shards").read_text() == "finished\n"
    assert job.called() == ["scontrol requeue 7"]


def test_a_job_that_is_cancelled_does_not_come_back(tmp_path: Path) -> None:
    job = Job(tmp_path, FINISHES_THE_SHARD)
    job.state = "COMPLETING"
    assert job.run(terminate=True) == 143
    assert (tmp_path / "shards").exists()
    assert job.called() == []


def test_a_job_comes_back_so_often_and_no_more(tmp_path: Path) -> None:
    job = Job(tmp_path, "exit 143", restarts=3)
    job.run(SLURM_RESTART_COUNT="2")
    job.run(SLURM_RESTART_COUNT="3")
    assert job.called() == ["scontrol requeue 7"]


@pytest.mark.parametrize("status", [0, 1, 130])
@pytest.mark.parametrize("system", SYSTEMS)
def test_a_job_that_ends_otherwise_ends_so(tmp_path: Path, system: System, status: int) -> None:
    job = Job(tmp_path, f"exit {status}", system=system)
    assert job.run() == status
    assert job.called() == []


@pytest.mark.parametrize(("system", "status", "called"), [("pbs", 0, True), ("sge", 99, False), ("lsf", 99, False)])
def test_elsewhere_a_job_out_of_time_comes_back(tmp_path: Path, system: System, status: int, called: bool) -> None:
    job = Job(tmp_path, FINISHES_THE_SHARD, system=system, time="00:00:02", grace=1)
    assert job.run() == status
    assert (tmp_path / "shards").exists()
    assert job.called() == ([f"qsub {job.script}"] if called else [])


@pytest.mark.parametrize("system", ["pbs", "sge", "lsf"])
def test_elsewhere_a_signal_from_outside_is_a_cancellation(tmp_path: Path, system: System) -> None:
    job = Job(tmp_path, FINISHES_THE_SHARD, system=system)
    assert job.run(terminate=True) == 143
    assert job.called() == []


def test_of_several_jobs_only_the_first_goes_beyond_the_build(tmp_path: Path) -> None:
    job = Job(tmp_path, 'echo "$@" >> arguments', jobs=3)
    job.run(SLURM_ARRAY_TASK_ID="0")
    job.run(SLURM_ARRAY_TASK_ID="2")
    assert (tmp_path / "arguments").read_text().splitlines() == ["run rows.toml", "run rows.toml --until build"]
    assert "#SBATCH --array=0-2\n" in job.script.read_text()


def test_commands_before_and_lines_of_ones_own_are_in_the_script(tmp_path: Path) -> None:
    job = Job(tmp_path, 'echo "$SET_UP" > said', setup=["export SET_UP=yes"], directives=["--constraint=fast"])
    job.run()
    assert (tmp_path / "said").read_text() == "yes\n"
    assert "#SBATCH --constraint=fast\n" in job.script.read_text()


@pytest.mark.parametrize(
    ("system", "lines"),
    [
        ("slurm", ["#SBATCH --requeue", "#SBATCH --signal=B:TERM@120", "#SBATCH --mem=7630M", "#SBATCH --partition=q"]),
        ("pbs", ["#PBS -r y", "#PBS -l select=1:ncpus=3:mem=7630mb", "#PBS -q q", "#PBS -A us"]),
        ("sge", ["#$ -r y", "#$ -pe smp 3", "#$ -l mem_free=7630M", "#$ -q q"]),
        ("lsf", ["#BSUB -r", '#BSUB -Q "99"', "#BSUB -n 3", "#BSUB -W 12:00", "#BSUB -P us"]),
    ],
)
def test_the_header_asks_for_what_the_recipe_says(tmp_path: Path, system: System, lines: list[str]) -> None:
    asked = recipe(system=system, cpus=3, memory="8GB", queue="q", account="us")
    script = job_script(asked, ["rows.toml"], tmp_path).splitlines()
    assert set(lines) <= set(script)
    assert script[0] == "#!/usr/bin/env bash"


@pytest.mark.parametrize(
    "values",
    [{"time": "00:01:00"}, {"jobs": 0}, {"system": "lsf", "jobs": 2}, {"setup": ("a\nb",)}, {"time": "1 hour"}],
)
def test_what_cannot_be_asked_for_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        SubmitSettings(**values)


def test_a_refusal_is_told_in_the_systems_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(tmp_path, "exit 0")
    job.command("sbatch", "echo 'invalid partition specified: q' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(SubmitError, match=r"sbatch refused .*job\.sh: invalid partition specified: q"):
        submit(job.script, "slurm")


def test_what_the_system_answers_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(tmp_path, "exit 0")
    job.command("bsub", 'read line; echo "took $line"')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert submit(job.script, "lsf") == "took #!/usr/bin/env bash"
