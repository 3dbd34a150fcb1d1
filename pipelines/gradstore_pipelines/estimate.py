"""`--dry-run`: what a build will make and take, from a trial of the real steps; leaves nothing behind.

Bytes and files are counted: the trial's store is the build's but for its shards, and all shards are of one size. Time
and memory are measured (see `trial`) and multiplied by what is left to do. `tests/benchmarks/estimate.py` holds both
against real builds.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gradstore.data import load_batch
from gradstore.gradients.coverage import How
from gradstore.gradients.timing import time_shares
from gradstore.models.checkpoints import Checkpoint
from gradstore.models.registry import task_settings
from gradstore.models.schedule import Schedule
from gradstore.sketcher import Sketcher, SketchPlan, single_thread
from gradstore.store import Manifest, Store, layout
from gradstore.store.place import is_url
from gradstore.store.sealed import json_text
from gradstore_pipelines.build_store import begin_store, is_trained, training_of
from gradstore_pipelines.memory import peak_memory
from gradstore_pipelines.preparation import Prepared, prepare, probe_batch, request
from gradstore_pipelines.progress import Reporter, Silent
from gradstore_pipelines.remembered import remember_data
from gradstore_pipelines.settings import REQUEST, BuildSettings
from gradstore_pipelines.stages.sketch import SketchStage
from gradstore_pipelines.trial import SketchTrial, TrainingTrial, trial_folder, try_sketching, try_training
from gradstore_pipelines.where import Where

_LONGEST_UNIT = 1.0
"""Seconds; where a shard takes longer, the trial's shards are smaller."""
_REST_OF_TRAINING_JSON = 350
"""Bytes beside the task's own."""


@dataclass(frozen=True)
class Estimate:
    """What a build will make and take."""

    n_examples: int
    n_checkpoints: int
    n_tracked_parameters: int
    coverage: list[tuple[str, int, int]]
    """(route, tensors, numbers)"""
    time_shares: Mapping[How, float]
    """of the routes, in the time of sketching"""
    n_shards: int
    n_files: int
    n_bytes: int
    n_workers: int
    """processes that sketch; 0 is the one that asks"""
    seconds_starting: float
    """until the program is loaded, the data are opened and scanned, and the model is tried out"""
    seconds_training: float
    seconds_sketching: float
    memory: int
    """bytes of resident memory, at most: the process that prepares, trains, and feeds the workers"""
    memory_of_worker: int
    """and each worker"""
    notes: list[str]
    """what the figures leave out"""

    @property
    def seconds(self) -> float:
        """Of the whole build."""
        return self.seconds_starting + self.seconds_training + self.seconds_sketching

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "seconds": self.seconds}


def estimate(settings: BuildSettings, reporter: Reporter | None = None, *, seconds_before: float = 0.0) -> Estimate:
    """Try the steps of a build and count the rest. Raises what `build` would raise about data, model and settings.

    Args:
        seconds_before: what this process has taken to come here, as the build's will.
    """
    start = time.perf_counter()
    prepared = prepare(settings, reporter or Silent())
    preparing = time.perf_counter() - start
    with trial_folder(settings.store) as folder:
        return _Trial(settings, prepared, folder).estimate(seconds_before + preparing)


class _Trial:
    """The steps of a build, on trial, in their order."""

    def __init__(self, settings: BuildSettings, prepared: Prepared, folder: Path) -> None:
        self._asked, self._folder, self._where = settings, folder, settings.where()
        self._n_checkpoints = len(prepared.given) or settings.n_checkpoints
        self._training = None if prepared.given else self._try_training(prepared)
        self._prepared = prepared if self._training is None else self._with(prepared, self._training.weights)

    def estimate(self, seconds_starting: float) -> Estimate:
        start = time.perf_counter()
        store = self._begin("store", self._prepared)
        beginning = 0.0 if self._asked.place.exists(layout.MANIFEST) else time.perf_counter() - start
        files, n_bytes = self._beside_shards(store)
        sketcher = _sketcher_of(store, self._asked.resolved_device())
        with single_thread():
            shares = time_shares(sketcher.engine, probe_batch(self._prepared.source).to(sketcher.device))
        sketching = self._try_sketching(store, sketcher)
        real = dataclasses.replace(store.manifest, sharded=is_url(self._asked.store))
        n_shards = real.n_shards * self._n_checkpoints
        return Estimate(
            n_examples=real.n_examples,
            n_checkpoints=self._n_checkpoints,
            n_tracked_parameters=sketcher.engine.coverage.n_parameters,
            coverage=sketcher.engine.coverage.summary(),
            time_shares=shares,
            n_shards=n_shards,
            n_files=n_shards * (len(layout.arrays(real)) + 1) + files,
            n_bytes=n_shards * (layout.shard_bytes(real) + self._record_bytes()) + n_bytes,
            n_workers=self._where.n_workers,
            seconds_starting=seconds_starting + beginning,
            seconds_training=self._seconds_training(),
            seconds_sketching=self._seconds_sketching(sketching, real) + self._seconds_loading(sketcher),
            memory=peak_memory(),
            memory_of_worker=sketching.memory if self._is_spread else 0,
            notes=self._notes(),
        )

    # Training

    def _try_training(self, prepared: Prepared) -> TrainingTrial:
        return try_training(prepared, training_of(self._asked), self._schedule(prepared), self._folder)

    def _schedule(self, prepared: Prepared) -> Schedule:
        recipe = training_of(self._asked)
        names = ("batch_size", "epochs", "n_checkpoints", "seed")
        return Schedule(n_examples=len(prepared.source), **{name: getattr(recipe, name) for name in names})

    def _with(self, prepared: Prepared, weights: Checkpoint) -> Prepared:
        """As if every checkpoint of the training were the trial's."""
        return dataclasses.replace(prepared, given=(weights,) * self._n_checkpoints)

    def _seconds_training(self) -> float:
        if self._training is None or is_trained(self._asked):
            return 0.0
        return self._training.whole(self._schedule(self._prepared))

    # The store

    def _begin(self, name: str, prepared: Prepared) -> Store:
        """A store like the real one, without shards."""
        settings = dataclasses.replace(self._asked, store=self._folder / name)
        settings.place.write(REQUEST, json_text(request(settings, prepared)).encode())
        remember_data(settings, prepared.source, prepared.summary)
        return begin_store(settings, prepared, Silent())

    def _beside_shards(self, store: Store) -> tuple[int, int]:
        """How many files there are beside shards and commit records, and their bytes."""
        sizes = [entry.bytes for entry in store.place.entries()]
        if self._training is not None:
            sizes += [self._training.weights.path.stat().st_size] * self._n_checkpoints
            sizes.append(len(json.dumps(task_settings(self._prepared.task), indent=2)) + _REST_OF_TRAINING_JSON)
        return len(sizes), sum(sizes)

    def _record_bytes(self) -> int:
        return max(record.stat().st_size for record in self._folder.glob(f"*/{layout.COMMITS}/*.json"))

    # Sketching

    @property
    def _is_spread(self) -> bool:
        """Whether others sketch than this process."""
        return self._where != Where()

    @property
    def _n_tried(self) -> int:
        """Workers of the trial: those of other machines are not started for it, nor more than can compute at once."""
        return min(self._where.workers, os.cpu_count() or 1)

    def _try_sketching(self, store: Store, sketcher: Sketcher) -> SketchTrial:
        """With smaller shards, where one of the real size takes long: what a shard costs by itself is then nothing."""
        rows, a_block = store.manifest.shard_rows, _seconds_a_block(sketcher, self._prepared)
        block = self._prepared.block
        blocks = min(rows // block, max(1, int(_LONGEST_UNIT / a_block)))
        if blocks * block < rows:
            store = self._begin("smaller", dataclasses.replace(self._prepared, shard_rows=blocks * block))
        device, stamp = self._asked.resolved_device(), self._prepared.source.stamp()
        stage = SketchStage.planned(store, self._asked.batch_size, device, stamp)
        where = Where(workers=self._n_tried)
        return try_sketching(stage, where, blocks * block, blocks * a_block, self._folder)

    def _seconds_sketching(self, found: SketchTrial, real: Manifest) -> float:
        slower = self._where.workers / self._n_tried if self._n_tried else 1.0
        return found.whole(self._left(real), self._where.n_workers, slower)

    def _left(self, real: Manifest) -> list[int]:
        """Rows of every shard that is still to be made."""
        if self._asked.place.exists(layout.MANIFEST):
            begun = Store.open(self._asked.store)
            return [len(begun.shard_range(shard)) for _, shard in begun.pending()]
        return [len(layout.shard_range(real, shard)) for shard in range(real.n_shards)] * self._n_checkpoints

    def _seconds_loading(self, sketcher: Sketcher) -> float:
        """Of every checkpoint but the first, which is part of a worker's set-up."""
        start = time.perf_counter()
        sketcher.load(self._n_checkpoints - 1)
        return (time.perf_counter() - start) * (self._n_checkpoints - 1)

    def _notes(self) -> list[str]:
        notes = []
        if self._where.scheduler is not None:
            notes.append(
                "The scheduler is not asked for its workers: the time is that of one, as fast as this machine."
            )
        if self._where.cluster is not None:
            notes.append("Jobs are not started for this: workers are taken to be as fast as this machine, at once.")
        if is_url(self._asked.store):
            notes.append("The bucket is not written to: the time that sending takes is left out.")
        return notes


def _sketcher_of(store: Store, device: str) -> Sketcher:
    return Sketcher(SketchPlan.from_json(store.manifest.settings["plan"]), store.folder, device)


def _seconds_a_block(sketcher: Sketcher, prepared: Prepared) -> float:
    """The second one: the first pays for set-up."""
    batch = load_batch(prepared.source, slice(0, prepared.block))
    with single_thread():
        sketcher.gradients(0, batch)
        start = time.perf_counter()
        sketcher.gradients(0, batch)
        return time.perf_counter() - start
