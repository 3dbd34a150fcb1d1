"""A trial: the real steps of a build on a small part of its data, timed, in a folder that is removed again.

Why a trial and not a model of the costs: what a shard costs is decided by the data's format, the model, the disk, the
number of processes that share the memory's bandwidth. So the steps themselves are run, by the same code: steps of the
training with the real batches, then a store of the real size, and a few shards of it by the executor that is asked for.
Only what every shard costs alike is multiplied.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gradstore.models.checkpoints import Checkpoint, save_checkpoint
from gradstore.models.schedule import Schedule
from gradstore.models.trainer import Trainer
from gradstore.models.training import TrainingSettings, reproducible
from gradstore.store.claims import joined
from gradstore.store.files import write_atomically
from gradstore.store.place import Location, is_url, place_of
from gradstore_pipelines.executors import executor_for
from gradstore_pipelines.memory import peak_memory
from gradstore_pipelines.preparation import Prepared
from gradstore_pipelines.progress import Silent
from gradstore_pipelines.stage import Unit, UnitRecord
from gradstore_pipelines.stages.sketch import SketchStage
from gradstore_pipelines.where import Where

_SECONDS = 1.5
"""What steps and shards are run for, each, once they are warm."""
_STEPS_AT_LEAST, _UNITS_AT_LEAST = 5, 4


@dataclass(frozen=True)
class TrainingTrial:
    """What training costs, in seconds."""

    set_up: float
    """to the end of the first step"""
    step: float
    save: float
    """a checkpoint and the state beside it"""
    weights: Checkpoint
    """what the steps gave"""

    def whole(self, schedule: Schedule) -> float:
        """The whole training."""
        return self.set_up + (schedule.n_steps - 1) * self.step + schedule.n_checkpoints * self.save


@dataclass(frozen=True)
class SketchTrial:
    """What sketching costs with so many workers at once: seconds, and bytes of a worker's memory."""

    opening: float
    """until the first unit begins: a cluster starts"""
    set_up: float
    """of a worker, with its first unit"""
    unit: float
    """a shard of `rows`, and what lies between two"""
    rows: int
    closing: float
    memory: int

    def whole(self, shards: Iterable[int], n_workers: int, slower: float = 1.0) -> float:
        """Until the last of these shards is done, each taken by the first worker that is free.

        Args:
            shards: the rows of each.
            slower: by how much a unit takes longer than it did here.
        """
        free = [self.set_up] * max(n_workers, 1)
        for rows in shards:
            heapq.heapreplace(free, free[0] + slower * self.unit * rows / self.rows)
        return self.opening + max(free) + self.closing


@contextmanager
def trial_folder(store: Location) -> Iterator[Path]:
    """A folder on the same disk as the store will be, where that can be written; removed at the end."""
    parents = [] if is_url(store) else [p for p in Path(store).absolute().parents if p.is_dir()]
    beside = parents[0] if parents and os.access(parents[0], os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix=".gradstore-trial-", dir=beside) as folder:
        yield Path(folder)


def try_training(prepared: Prepared, settings: TrainingSettings, schedule: Schedule, folder: Path) -> TrainingTrial:
    """Take the first steps of the training."""
    start = time.perf_counter()
    with reproducible(settings):
        trainer = Trainer(prepared.task, prepared.source, prepared.summary, settings)
        steps = schedule.steps()
        trainer.learn(prepared.source, next(steps))
        set_up = time.perf_counter() - start
        step = _mean_seconds(lambda: trainer.learn(prepared.source, next(steps)), schedule.n_steps - 1)
    start = time.perf_counter()
    weights = save_checkpoint(
        folder / "trial.safetensors", trainer.model, learning_rate=settings.learning_rate, step=1, epoch=1
    )
    write_atomically(folder / "training-state", trainer.state())
    return TrainingTrial(set_up, step, time.perf_counter() - start, weights)


def try_sketching(stage: SketchStage, where: Where, rows: int, seconds_a_unit: float, folder: Path) -> SketchTrial:
    """Sketch a few shards of `rows` examples, by the executor that is asked for, with all its workers at once.

    Args:
        seconds_a_unit: what one takes, roughly: so many are run that each worker is warm and timed.
    """
    n_workers, notes = max(where.workers, 1), folder / "notes"
    notes.mkdir()
    each = max(_UNITS_AT_LEAST, round(_SECONDS / max(seconds_a_unit, 1e-6)) + 1)
    trial = TrialStage(**vars(stage), n_units=each * n_workers, notes=notes)
    start = time.time()
    with joined(place_of(stage.store), "trial") as claims:
        executor_for(where, device=stage.device, folder=folder).run(trial, Silent(), total=0, done=0, claims=claims)
    end = time.time()
    return _summed_up([_Note.read(file) for file in notes.iterdir()], rows, start, end)


@dataclass(frozen=True)
class TrialStage(SketchStage):
    """The first units of a sketch stage; each leaves a note of when it ran, and where."""

    n_units: int = 1
    notes: Path = Path()

    def units(self) -> Iterator[Unit]:
        return itertools.islice(super().units(), self.n_units)

    def run_unit(self, unit: Unit, advance: Callable[[int], None] | None = None) -> UnitRecord:
        start = time.time()
        record = super().run_unit(unit, advance)
        note = _Note(os.getpid(), start, time.time(), peak_memory())
        (self.notes / f"{unit.key}.json").write_text(json.dumps(dataclasses.asdict(note)))
        return record


@dataclass(frozen=True, order=True)
class _Note:
    process: int
    start: float
    end: float
    memory: int

    @classmethod
    def read(cls, file: Path) -> _Note:
        return cls(**json.loads(file.read_text()))


def _summed_up(notes: list[_Note], rows: int, start: float, end: float) -> SketchTrial:
    """A worker's first unit pays for its set-up; from the end of one to the end of the next is what one costs."""
    workers = [list(units) for _, units in itertools.groupby(sorted(notes), key=lambda note: note.process)]
    laps = [b.end - a.end for units in workers for a, b in itertools.pairwise(units)]
    firsts = [units[0].end - units[0].start for units in workers]
    unit = statistics.mean(laps) if laps else statistics.mean(firsts)
    return SketchTrial(
        opening=min(note.start for note in notes) - start,
        set_up=max(0.0, statistics.mean(firsts) - unit),
        unit=unit,
        rows=rows,
        closing=end - max(note.end for note in notes),
        memory=max(note.memory for note in notes),
    )


def _mean_seconds(work: Callable[[], object], at_most: int) -> float:
    """Of a few runs: until they took long enough, or there are no more."""
    start, done = time.perf_counter(), 0
    while done < at_most and (done < _STEPS_AT_LEAST or time.perf_counter() - start < _SECONDS):
        work()
        done += 1
    return (time.perf_counter() - start) / max(done, 1)
