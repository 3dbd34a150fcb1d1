"""`submit`: a recipe as a batch job that survives being preempted, requeued, and ended by its time limit.

The script needs nothing but the folder where it was written (or a bucket for the store) on the machine that runs it,
for all that a run knows lies in its store. It passes the system's warning on to gradstore, which finishes the shard in
hand and exits with 143; then the script puts itself into the queue again, and the next time the run goes on there.

Who asked for the end decides. A job that was cancelled must not come back: under SLURM only a job that is still
RUNNING when gradstore has stopped has been warned of its time limit, and requeues itself; after preemption and the
loss of a node SLURM does (`--requeue`). The other systems give no warning that all understand: there `timeout` ends
gradstore in time, and a TERM that comes from outside is a cancellation.

Tried: SLURM, in the tests. PBS, SGE and LSF: written by their manuals, not run here.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gradstore.errors import GradstoreError
from gradstore_pipelines.recipe import Recipe
from gradstore_pipelines.recipe_settings import n_bytes
from gradstore_pipelines.submit_settings import SubmitSettings, System

_REQUEUE = 99  # the exit status by which SGE, and LSF with -Q, put a job into the queue again


class SubmitError(GradstoreError, RuntimeError):
    """A job that cannot be handed over."""


def job_script(recipe: Recipe, arguments: Sequence[str], folder: Path) -> str:
    """The text of a script that runs a recipe.

    Args:
        arguments: of `gradstore run`: the recipe, and changes to it.
        folder: where it is run; the recipe's paths start there.
    """
    asked = recipe.submit
    system = _SYSTEMS[asked.system]
    header = [f"{system.prefix} {line}" for line in (*system.header(asked, recipe.name), *asked.directives)]
    return "\n".join(["#!/usr/bin/env bash", *header, *_body(asked, system, arguments, folder)]) + "\n"


def submit(script: Path, system: System) -> str:
    """Hand a script over, and return what the system says of it, such as the job's number.

    Raises:
        SubmitError: the system is not here, or refuses; in its own words.
    """
    command = [*_SYSTEMS[system].submit, *([] if system == "lsf" else [str(script)])]
    try:
        ran = subprocess.run(command, input=script.read_text(), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise SubmitError(
            f"There is no command {command[0]!r} here, by which {system} takes jobs. Run {script} where there is one."
        ) from None
    if ran.returncode:
        raise SubmitError(f"{command[0]} refused {script}: {ran.stderr.strip() or ran.stdout.strip()}")
    return ran.stdout.strip()


@dataclass(frozen=True)
class _System:
    prefix: str
    header: Callable[[SubmitSettings, str], Iterator[str]]
    submit: Sequence[str]
    again: str
    """puts the job into the queue once more"""


def _body(asked: SubmitSettings, system: _System, arguments: Sequence[str], folder: Path) -> Iterator[str]:
    command = shlex.join([sys.executable, "-m", "gradstore_cli", "run", *arguments])
    on_time = "" if asked.system == "slurm" else f"timeout --preserve-status {asked.seconds() - asked.grace} "
    yield from ("", "set -u", f"cd {shlex.quote(str(folder))} || exit 1", *asked.setup, "")
    yield from _WHOLE if asked.jobs > 1 else ()
    yield "stopped=no"
    yield f"{on_time}{command}{' $until' if asked.jobs > 1 else ''} &"
    yield from _WAIT
    yield system.again.format(restarts=asked.restarts).rstrip()
    yield 'exit "$status"'


# Every job of several sketches; what follows the build is done once.
_WHOLE = ["until=", '[ "${SLURM_ARRAY_TASK_ID:-0}" = 0 ] || until="--until build"']

# A signal that is trapped ends `wait` before the run has ended.
_WAIT = """\
run=$!
trap 'stopped=yes; kill -TERM "$run" 2>/dev/null' TERM
wait "$run"
while kill -0 "$run" 2>/dev/null; do wait "$run"; done
wait "$run"
status=$?
""".splitlines()

_SLURM_AGAIN = """\
# 143: stopped in time. A job that is still running was warned of its time limit; a cancelled one is not.
if [ "$status" = 143 ] && [ "$(squeue --noheader --jobs "$SLURM_JOB_ID" --format %T)" = RUNNING ]; then
  if [ "${{SLURM_RESTART_COUNT:-0}}" -lt {restarts} ]; then
    echo "Out of time: queued again." >&2
    scontrol requeue "$SLURM_JOB_ID" && sleep 60
  else
    echo "Out of time, and queued again {restarts} times already: raise [submit] time or restarts." >&2
  fi
fi
"""

_PBS_AGAIN = """\
# 143: stopped in time, and by no signal from outside.
if [ "$status" = 143 ] && [ "$stopped" = no ]; then
  qsub "$0" && exit 0
fi
"""

_EXIT_AGAIN = f"""\
# 143: stopped in time, and by no signal from outside; {_REQUEUE} puts the job into the queue again.
[ "$status" = 143 ] && [ "$stopped" = no ] && exit {_REQUEUE}
"""


def _slurm(asked: SubmitSettings, name: str) -> Iterator[str]:
    yield f"--job-name=gradstore-{name}"
    yield f"--output=gradstore-{name}-{'%A_%a' if asked.jobs > 1 else '%j'}.log"
    yield from ("--open-mode=append", "--requeue", f"--signal=B:TERM@{asked.grace}", f"--time={asked.time}")
    yield from ("--nodes=1", "--ntasks=1", f"--cpus-per-task={asked.cpus}")
    yield from _given("--mem={}M", _megabytes(asked))
    yield from _given("--gpus={}", asked.gpus)
    yield from _given("--partition={}", asked.queue)
    yield from _given("--account={}", asked.account)
    yield from _given("--array=0-{}", asked.jobs - 1)


def _pbs(asked: SubmitSettings, name: str) -> Iterator[str]:
    memory = "".join(_given(":mem={}mb", _megabytes(asked)))
    yield from (f"-N gradstore-{name}", "-j oe", f"-o gradstore-{name}.log", "-r y")
    yield from (f"-l walltime={asked.time}", f"-l select=1:ncpus={asked.cpus}{memory}")
    yield from _given("-q {}", asked.queue)
    yield from _given("-A {}", asked.account)


def _sge(asked: SubmitSettings, name: str) -> Iterator[str]:
    yield from (f"-N gradstore-{name}", "-cwd", "-j y", f"-o gradstore-{name}.log", "-r y", f"-l h_rt={asked.time}")
    yield from _given("-pe smp {}", asked.cpus if asked.cpus > 1 else None)
    yield from _given("-l mem_free={}M", _megabytes(asked))
    yield from _given("-q {}", asked.queue)
    yield from _given("-A {}", asked.account)


def _lsf(asked: SubmitSettings, name: str) -> Iterator[str]:
    hours, minutes, _ = asked.time.split(":")
    yield from (f"-J gradstore-{name}", f"-o gradstore-{name}-%J.log", "-r", f'-Q "{_REQUEUE}"')
    yield from (f"-W {hours}:{minutes}", f"-n {asked.cpus}", '-R "span[hosts=1]"')
    yield from _given("-M {}MB", _megabytes(asked))
    yield from _given("-q {}", asked.queue)
    yield from _given("-P {}", asked.account)


def _given(line: str, value: object) -> list[str]:
    """A line of the header, where there is something to say."""
    return [line.format(value)] if value else []


def _megabytes(asked: SubmitSettings) -> int | None:
    return None if asked.memory is None else -(-n_bytes(asked.memory) // 2**20)


_SYSTEMS: Mapping[System, _System] = {
    "slurm": _System("#SBATCH", _slurm, ("sbatch", "--parsable"), _SLURM_AGAIN),
    "pbs": _System("#PBS", _pbs, ("qsub",), _PBS_AGAIN),
    "sge": _System("#$", _sge, ("qsub",), _EXIT_AGAIN),
    "lsf": _System("#BSUB", _lsf, ("bsub",), _EXIT_AGAIN),
}
