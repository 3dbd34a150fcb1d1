"""Dask workers: fed in a window, wherever they are.

Rows never pass through the scheduler: a worker reads its examples, writes its shard and returns a record. Units are
fed in a window and each future is released as soon as it is gathered: a future that is kept makes the scheduler run
its unit again when the worker that held the result dies (measured: 33 executions against 26 for 24 units and two
kills). So what client and scheduler hold does not grow with the number of shards.

Why retries are counted here and not left to Dask: what would fail every unit alike, such as a full disk, is to show
at once, and not after three attempts.

Why a unit whose workers died is tried again at the end, alone: when a worker dies, Dask suspects whatever waited there
as well, and gives up on the innocent together with the guilty (seen: two units reported for one).
"""

from __future__ import annotations

import pickle
import queue
import secrets
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradstore.errors import GradstoreError, SchedulerError, WorkerError, WorkerMismatchError
from gradstore.store.claims import Claims
from gradstore_pipelines.executors.code import code_here
from gradstore_pipelines.executors.connect import Connected, connected
from gradstore_pipelines.executors.faults import Failures
from gradstore_pipelines.executors.supply import Supply
from gradstore_pipelines.executors.watch import Watch
from gradstore_pipelines.progress import Advance, Reporter
from gradstore_pipelines.stage import Stage, Unit
from gradstore_pipelines.stopping import Stop, Stopped, finishing
from gradstore_pipelines.where import Where

_UNITS_AHEAD = 4  # a worker, so that none waits for the client
_RETRIES = 2
_TICK_S = 0.2
_LOOK_EVERY_S = 2.0


class DaskExecutor:
    """Runs units on the workers of a place."""

    def __init__(self, where: Where, device: str, folder: Path) -> None:
        self._where, self._device, self._folder = where, device, folder

    def run(self, stage: Stage, reporter: Reporter, *, total: int, done: int, claims: Claims | None = None) -> int:
        task = reporter.task(stage.name, total, "rows", done, unit_bytes=stage.row_bytes)
        with (
            finishing() as stop,
            connected(self._where, self._device, self._folder, reporter.say) as place,
            task as advance,
        ):
            return _Feed(place, stage, claims, reporter, advance, stop).run()


@dataclass(frozen=True)
class _Running:
    unit: Unit
    future: Any
    tries: int
    alone: bool


class _Feed:
    """One stage's units on their way to workers and back."""

    def __init__(
        self, place: Connected, stage: Stage, claims: Claims | None, reporter: Reporter, advance: Advance, stop: Stop
    ) -> None:
        self._client, self._place, self._reporter, self._advance = place.client, place, reporter, advance
        self._stage, self._stage_name, self._name = pickle.dumps(stage), stage.name, secrets.token_hex(8)
        self._supply, self._failures = Supply(stage, claims, reporter.say), Failures()
        self._stop, self._stopping = stop, False
        self._running: dict[Any, _Running] = {}
        self._suspects: deque[Unit] = deque()
        self._n_submitted = 0
        self._done: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._watch = Watch(reporter.say, place.place)
        self._n_workers, self._look_at, self._made = 1, 0.0, 0

    def run(self) -> int:
        while self._fill() or self._running or not (self._ends or self._is_empty):
            self._look()
            self._take_done()
        self._failures.raise_any(self._blame, here=False)
        if not self._is_empty or self._stopping:
            raise Stopped(f"Stopped as asked, with the shards in hand finished: {self._made} made by this run.")
        return self._made

    @property
    def _ends(self) -> bool:
        """Whether nothing more is begun."""
        return self._stop.asked or self._failures.hopeless

    @property
    def _is_empty(self) -> bool:
        return self._supply.is_empty and not self._suspects

    # Out

    def _fill(self) -> bool:
        """Whether something more was begun."""
        began = False
        while not self._ends and len(self._running) < _UNITS_AHEAD * self._n_workers:
            unit = self._supply.take()
            if unit is None:
                break
            self._submit(unit, tries=1)
            began = True
        if self._suspects and self._supply.is_empty and not (self._running or self._ends):
            self._submit(self._suspects.popleft(), tries=1, alone=True)
            began = True
        return began

    def _submit(self, unit: Unit, tries: int, *, alone: bool = False) -> None:
        from gradstore_pipelines.executors.worker import run_unit

        # A name of several parts puts all units into one group, which waits at the scheduler and not at workers.
        key = (f"{self._stage_name}-{self._name}", self._n_submitted)
        self._n_submitted += 1
        future = self._client.submit(run_unit, self._stage, unit, code_here(), self._name, key=key)
        self._running[key] = _Running(unit, future, tries, alone)
        future.add_done_callback(self._done.put)

    # And back

    def _take_done(self) -> None:
        """Whatever has come back, after waiting a moment for the first."""
        try:
            self._take(self._done.get(timeout=_TICK_S))
            while True:
                self._take(self._done.get_nowait())
        except queue.Empty:
            return

    def _take(self, future: Any) -> None:
        running = self._running.pop(future.key)
        if future.status == "cancelled":  # by Dask itself: nobody else does
            raise self._scheduler_gone()
        if future.status == "lost":  # its worker died with the record in hand; the commit, if any, is found
            self._submit(running.unit, running.tries, alone=running.alone)
            return
        try:
            outcome = future.result()
        except Exception as error:
            self._take_error(running, _in_our_words(error, running.unit))
        else:
            self._take_outcome(running.unit, outcome)
        finally:
            future.release()

    def _take_outcome(self, unit: Unit, outcome: Any) -> None:
        self._supply.finish(unit)
        if outcome.record is not None:
            self._watch.finished(outcome.worker, outcome.host, outcome.seconds)
            self._advance(outcome.record.n_examples)
            self._failures.done()
            self._made += outcome.record.made

    def _take_error(self, running: _Running, error: Exception) -> None:
        may_pass = not isinstance(error, GradstoreError)
        if may_pass and running.tries <= _RETRIES and not self._ends:
            self._submit(running.unit, running.tries + 1)
        elif type(error) is WorkerError and not (running.alone or self._ends):
            self._suspects.append(running.unit)
        else:
            self._supply.finish(running.unit)
            self._failures.add(running.unit, error)

    def _blame(self, unit: Unit) -> list[str]:
        """Asked of a worker: this process may have neither the data nor the GPU. None of what a worker died of."""
        from gradstore_pipelines.executors.worker import blame

        if isinstance(self._failures.of(unit), WorkerError):
            return []
        self._reporter.say(f"Looking for the examples that fail in {unit}.")
        try:
            return list(self._client.submit(blame, self._stage, unit, pure=False).result())
        except Exception:
            return []

    # Meanwhile

    def _look(self) -> None:
        """Now and then: whether to stop, how many workers there are, whether any will come."""
        if self._stop.asked and not self._stopping:
            self._begin_nothing_more()
        if time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        workers = self._threads()
        self._n_workers = max(sum(workers.values()), 1)
        self._place.check(len(workers))
        self._watch.look(workers, busy=len(self._running) >= len(workers))

    def _begin_nothing_more(self) -> None:
        from gradstore_pipelines.executors.worker import stop

        self._stopping = True
        self._reporter.say("Asked to stop: the shards in hand are finished first. Ask again to stop at once.")
        self._client.run(stop, self._name, on_error="ignore")

    def _threads(self) -> dict[str, int]:
        try:
            found: dict[str, int] = self._client.nthreads()
        except (OSError, RuntimeError) as error:
            raise self._scheduler_gone() from error
        return found

    def _scheduler_gone(self) -> SchedulerError:
        return SchedulerError(
            f"The scheduler of {self._place.place} has gone, with {len(self._running) + 1} shards on their way. "
            "Everything committed is kept: start a scheduler and run the same command to go on."
        )


def _in_our_words(error: Exception, unit: Unit) -> Exception:
    """What Dask says of a unit, as this project would."""
    from distributed.scheduler import KilledWorker

    if isinstance(error, KilledWorker):
        return WorkerError(
            f"each of the {error.allowed_failures + 1} workers that ran it died, the last at "
            f"{error.last_worker.address}. The system kills what takes too much memory (see its log); or the model's "
            "native code crashes."
        )
    if isinstance(error, (ImportError, AttributeError)) and "gradstore" in str(error):
        return WorkerMismatchError(
            f"A worker cannot run {unit}: {type(error).__name__}: {error}. Install the same version of gradstore where "
            "the workers run."
        )
    return error
