"""What runs on a Dask worker: check that it may, then do one unit, and return a line about it.

A worker may live for weeks and serve other builds too. So nothing here outlives a build but the opened store and the
names of the runs that were asked to stop, and what a unit needs is compared anew for each: code, data, weights.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from distributed import WorkerPlugin, get_worker

from gradstore.errors import (
    CheckpointError,
    SourceNotFoundError,
    StoreMismatchError,
    TaskNotFoundError,
    WorkerMismatchError,
)
from gradstore_pipelines.executors.code import Code, code_here
from gradstore_pipelines.stage import Stage, Unit, UnitRecord

# What says of a store or its data that it is not what this build was planned with. The build has opened both before:
# here it means that this machine sees others.
_OTHER_HERE = (StoreMismatchError, CheckpointError, SourceNotFoundError, TaskNotFoundError)

_stopping: set[str] = set()


@dataclass(frozen=True)
class Outcome:
    """A unit's record, and where it was done."""

    record: UnitRecord | None
    """None: not begun, for the run was asked to stop"""
    worker: str
    host: str
    seconds: float


def run_unit(stage: bytes, unit: Unit, code: Code, run: str) -> Outcome:
    """Do a unit of a pickled stage.

    Args:
        code: of the process that planned the work.
        run: name of the run; after `stop(run)` nothing of it is begun.

    Raises:
        WorkerMismatchError: other code, data or weights here.
    """
    started = time.monotonic()
    record = None if run in _stopping else _run(stage, unit, code)
    return Outcome(record, get_worker().address, socket.gethostname(), time.monotonic() - started)


def blame(stage: bytes, unit: Unit) -> Sequence[str]:
    """Ids of the examples for which the unit fails."""
    return _opened(stage).blame(unit)


def stop(run: str) -> None:
    """Begin nothing more of a run."""
    _stopping.add(run)


def _run(stage: bytes, unit: Unit, code: Code) -> UnitRecord:
    with _naming_this_worker():
        _require(code)
        return _opened(stage).run_unit(unit)


def _opened(stage: bytes) -> Stage:
    opened: Stage = pickle.loads(stage)
    return opened


def _require(planned: Code) -> None:
    different = code_here().differences(planned)
    if different:
        raise WorkerMismatchError(
            f"it has other code than this build was planned with: {'; '.join(different)}. "
            "Install the same versions everywhere, and start the workers again."
        )


@contextmanager
def _naming_this_worker() -> Iterator[None]:
    who = f"A worker on {socket.gethostname()} ({get_worker().address}) cannot take part"
    try:
        yield
    except WorkerMismatchError as error:
        raise WorkerMismatchError(f"{who}: {error}") from error
    except _OTHER_HERE as error:
        raise WorkerMismatchError(f"{who}: {error} This build was planned where it is otherwise.") from error


class LocalWorker(WorkerPlugin):
    """Readies a process that this build started on its own machine.

    It leaves SIGTERM to the build, which gets it too when a whole process group is signalled, and lets the shards in
    hand be finished. Each worker sees one GPU.
    """

    name = "gradstore-local-worker"

    def __init__(self, gpus: Sequence[str]) -> None:
        self._gpus = tuple(gpus)

    def setup(self, worker: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self._gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = self._gpus[int(worker.name)]
