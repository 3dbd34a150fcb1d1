"""Feeding units to workers, with a client that does at once what it is asked: what is tried again, and what is said."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from distributed.scheduler import KilledWorker

from gradstore.errors import BadExamplesError, SchedulerError, StoreWriteError, TaskError, WorkerError
from gradstore_pipelines import stopping
from gradstore_pipelines.executors import dask as dask_executor
from gradstore_pipelines.executors.connect import Connected
from gradstore_pipelines.executors.supply import Supply
from gradstore_pipelines.executors.watch import Watch
from gradstore_pipelines.executors.worker import Outcome
from gradstore_pipelines.progress import Silent
from gradstore_pipelines.stage import Unit, UnitRecord
from gradstore_pipelines.stages.blame import guilty
from gradstore_pipelines.where import Where

N_WORKERS = 3


@dataclass(frozen=True)
class _Stage:
    n_units: int
    name: str = "toy"
    row_bytes: int = 8

    def units(self) -> Iterator[Unit]:
        return (Unit(0, shard) for shard in range(self.n_units))

    def run_unit(self, unit: Unit, advance: Callable[[int], None] | None = None) -> UnitRecord:
        return UnitRecord(unit, 10)

    def blame(self, unit: Unit) -> list[str]:
        return [f"x{unit.shard}"]


class _Dead(KilledWorker):
    """As the scheduler makes it."""

    def __init__(self) -> None:
        super().__init__("key", type("Worker", (), {"address": "tcp://w"})(), 2)


@dataclass
class _Future:
    key: Any
    found: Any
    status: str = "finished"
    released: bool = False

    def add_done_callback(self, tell: Callable[[Any], None]) -> None:
        tell(self)

    def result(self) -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def release(self) -> None:
        self.released = True


@dataclass
class _Client:
    """Fails a shard as often as it is told to, counts what it is given, and how much at a time."""

    faults: dict[int, list[Any]] = field(default_factory=dict)
    tried: Counter[int] = field(default_factory=Counter)
    futures: list[_Future] = field(default_factory=list)
    most_at_once: int = 0

    def submit(
        self, function: Any, stage: bytes, unit: Unit, *rest: Any, key: Any = None, pure: bool = True
    ) -> _Future:
        if function.__name__ == "blame":
            return _Future(key, _Stage(0).blame(unit))
        self.tried[unit.shard] += 1
        planned = self.faults.get(unit.shard, [])
        found = planned.pop(0) if planned else None
        record = Outcome(UnitRecord(unit, 10), "tcp://w", "host", 0.1)
        future = _Future(
            key, found if isinstance(found, Exception) else record, found if isinstance(found, str) else "finished"
        )
        self.futures.append(future)
        self.most_at_once = max(self.most_at_once, sum(not future.released for future in self.futures))
        return future

    def nthreads(self) -> dict[str, int]:
        return {f"tcp://{number}": 1 for number in range(N_WORKERS)}

    def run(self, *words: Any, **more: Any) -> None:
        pass


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[_Client, int], int]:
    def run(client: _Client, n_units: int) -> int:
        @contextlib.contextmanager
        def connected(*words: object) -> Iterator[Connected]:
            yield Connected(client, "a test")

        monkeypatch.setattr(dask_executor, "connected", connected)
        executor = dask_executor.DaskExecutor(Where(workers=N_WORKERS), "cpu", tmp_path)
        return executor.run(_Stage(n_units), Silent(), total=10 * n_units, done=0)

    return run


Run = Callable[[_Client, int], int]


def test_every_unit_is_done_once_and_few_are_held_at_a_time(run: Run) -> None:
    client = _Client()
    assert run(client, 500) == 500
    assert set(client.tried.values()) == {1}
    assert client.most_at_once <= 4 * N_WORKERS
    assert all(future.released for future in client.futures)


def test_what_may_pass_is_tried_three_times(run: Run) -> None:
    client = _Client({5: [OSError("stale handle"), OSError("stale handle")]})
    assert run(client, 10) == 10
    assert client.tried[5] == 3


def test_a_unit_that_dies_among_others_is_tried_again_alone(run: Run) -> None:
    client = _Client({5: [_Dead()], 6: [_Dead()]})
    assert run(client, 10) == 10
    assert (client.tried[5], client.tried[6]) == (2, 2)


def test_a_unit_that_dies_alone_too_is_reported_and_the_rest_is_done(run: Run) -> None:
    client = _Client({5: [_Dead(), _Dead()]})
    with pytest.raises(
        WorkerError, match=r"1 shard failed\. The others .*\n  checkpoint 0, shard 5: each of the 3 workers"
    ):
        run(client, 10)
    assert set(client.tried) == set(range(10))


def test_a_record_that_is_lost_with_its_worker_is_asked_for_again(run: Run) -> None:
    client = _Client({5: ["lost"]})
    assert run(client, 10) == 10
    assert client.tried[5] == 2


def test_a_scheduler_that_cancels_everything_has_gone(run: Run) -> None:
    with pytest.raises(SchedulerError, match="The scheduler of a test has gone"):
        run(_Client({5: ["cancelled"]}), 10)


def test_examples_are_named_and_other_units_done(run: Run) -> None:
    client = _Client({5: [TaskError("too odd")], 7: [TaskError("too odd")]})
    with pytest.raises(
        BadExamplesError, match=r"2 shards failed.*\n.*shard 5, example 'x5': too odd\n.*shard 7, .*'x7'"
    ):
        run(client, 10)
    assert set(client.tried.values()) == {1}


def test_where_most_units_fail_the_rest_is_not_tried(run: Run) -> None:
    client = _Client({shard: [TaskError("no")] for shard in range(1000)})
    with pytest.raises(BadExamplesError, match=r"(?s)The rest was not tried.*and \d+ more"):
        run(client, 1000)
    assert sum(client.tried.values()) < 30


def test_a_full_disk_ends_it_at_once(run: Run) -> None:
    client = _Client({0: [StoreWriteError("no space")]})
    with pytest.raises(StoreWriteError, match="no space"):
        run(client, 1000)
    assert sum(client.tried.values()) <= 4 * N_WORKERS


def test_who_is_asked_to_stop_begins_nothing_more(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    take = Supply.take

    def until_the_tenth(self: Supply) -> Unit | None:
        unit = take(self)
        if unit is not None and unit.shard == 9:
            assert stopping.ask()
        return unit

    monkeypatch.setattr(Supply, "take", until_the_tenth)
    client = _Client()
    with pytest.raises(stopping.Stopped, match="10 made by this run"):
        run(client, 1000)


def test_guilty_rows_are_found_by_halves() -> None:
    tried: list[range] = []

    def fails(part: range) -> bool:
        tried.append(part)
        return 300 in part

    assert guilty(range(256, 320), 64, fails) == [300]
    assert len(tried) <= 1 + 2 * 6


def test_rows_that_fail_only_together_are_all_named() -> None:
    assert guilty(range(8), 4, lambda part: len(part) > 2 and 1 in part) == [0, 1, 2, 3]


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_worker_that_takes_three_times_as_long_as_others_is_told_of_once() -> None:
    clock, said = _Clock(), list[str]()
    watch = Watch(said.append, "a test", clock)
    watch.look(["a", "b"], busy=True)
    for _ in range(10):
        clock.now += 12
        watch.finished("a", "n1", 12)
        watch.look(["a", "b"], busy=True)
    assert said[0] == "2 workers at a test."
    assert said[1:] == ["The worker b has been at one shard for 48 s; half of them take less than 12 s."]


def test_that_no_worker_comes_is_said_ever_less_often() -> None:
    clock, said = _Clock(), list[str]()
    watch = Watch(said.append, "a test", clock)
    for clock.now in range(0, 120, 5):
        watch.look([], busy=True)
    assert said == [f"No worker at a test for {seconds} s; waiting." for seconds in (20, 35, 65)]
