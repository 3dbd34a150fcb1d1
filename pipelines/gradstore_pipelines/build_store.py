"""`build`: from a data set to a finished gradient store, resumable at every step.

    scan the data -> train, or take the given checkpoints -> plan and probe the gradients -> sketch every shard

Everything lives in the store's folder. `build/request.json` says what was asked before there is a store, so that
an interrupted training is continued by the same settings only; `build/scan.json` saves reading the data again.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

import gradstore
from gradstore.data import DataSummary, ExampleSource, load_batch, open_source, scan
from gradstore.errors import MissingLabelsError, StoreMismatchError
from gradstore.models.checkpoints import Checkpoint, find_checkpoints
from gradstore.models.registry import make_task, task_settings
from gradstore.models.training import TrainingProgress, TrainingSettings, train
from gradstore.sketcher import Sketcher, SketchPlan, plan_for
from gradstore.store import Manifest, Store
from gradstore.store.creation import require_own_folder, restore_metadata
from gradstore.store.files import make_folder, write_atomically
from gradstore.store.layout import MANIFEST
from gradstore.store.manifest import differences, json_text
from gradstore.task import Batch, Task
from gradstore_pipelines.executors import executor_for
from gradstore_pipelines.progress import Reporter, Silent
from gradstore_pipelines.settings import BLOCK, BuildSettings
from gradstore_pipelines.stages.sketch import SketchStage

_REQUEST, _SCAN = "build/request.json", "build/scan.json"
_PROBE_EXAMPLES = 4
_IDS_AT_A_TIME = 65_536


@dataclass(frozen=True)
class BuildResult:
    """What a build did."""

    store: Path
    n_examples: int
    n_checkpoints: int
    sketched_shards: int
    """Shards made by this run; 0 when everything was there already."""


@dataclass(frozen=True)
class Prepared:
    """Data and model of a build, before anything long is started."""

    source: ExampleSource
    summary: DataSummary
    task: Task
    given: tuple[Checkpoint, ...]


def build(settings: BuildSettings, reporter: Reporter | None = None) -> BuildResult:
    """Make a gradient store, finish one, or find it finished.

    Raises:
        SourceError: the data cannot be used.
        TaskError: the model, its loss or its checkpoints cannot be used.
        StoreMismatchError: the store was made, or begun, by other settings.
        StoreWriteError: disk full or no permission; what is committed is kept.
    """
    reporter = reporter or Silent()
    prepared = prepare(settings, reporter)
    _claim(settings.store, request(settings, prepared), prepared)
    store = _existing(settings.store) or _begin(settings, prepared, reporter)
    pending = sum(1 for _ in store.pending())
    if pending:
        _sketch(settings, store, reporter)
        store.refresh()
        _forget_derived(store)
    store.require_complete()
    store.remove_leftovers()
    return BuildResult(settings.store, store.n_examples, store.n_checkpoints, pending)


def _forget_derived(store: Store) -> None:
    """Signals and indexes may have been computed from damaged bytes of a shard that is now as it was committed:
    the commit records, which name what they were computed from, are then the same as before the damage.
    """
    for file in [store.path / "signals.parquet", *(store.path / "indexes").glob("*")]:
        file.unlink(missing_ok=True)


def prepare(settings: BuildSettings, reporter: Reporter) -> Prepared:
    """Open and scan the data, make the task, find given checkpoints: everything that can be refused early."""
    settings.resolved_device()  # refused before the data are read
    source = _open(settings, reporter)
    summary = _summary(settings.store, source, reporter)
    task = make_task(settings.model, summary, source.example_shape)
    if task.needs_labels and source.label_names is None:
        raise MissingLabelsError(
            f"--model {settings.model} needs labels and '{settings.source}' has none. Pass --labels FILE, put images "
            "into one sub-folder a class, or use --model vae, which needs none."
        )
    given = find_checkpoints(settings.checkpoints, settings.learning_rate) if settings.checkpoints else []
    return Prepared(source, summary, task, tuple(dataclasses.replace(c, path=c.path.absolute()) for c in given))


def request(settings: BuildSettings, prepared: Prepared) -> dict[str, Any]:
    """Everything that determines the store's bytes, as JSON."""
    summary = prepared.summary
    return {
        "data": {
            "content": summary.content_hash,
            "n_examples": summary.n_examples,
            "example_shape": list(summary.example_shape),
            "dtype": summary.dtype,
        },
        "model": task_settings(prepared.task),
        "training": settings.training(),
        "checkpoints": [{"sha256": c.sha256, "learning_rate": c.learning_rate} for c in prepared.given] or None,
        **{name: getattr(settings, name) for name in ("parameters", "sketch_dim", "draws", "seed")},
        "shard_rows": settings.rows_a_shard(summary.n_examples),
        "block": BLOCK,
    }


def _open(settings: BuildSettings, reporter: Reporter) -> ExampleSource:
    source = open_source(
        settings.source, labels=settings.labels, image_size=settings.image_size, on_corrupt=settings.on_corrupt
    )
    for note in source.notes():
        reporter.say(note)
    return source


def _summary(store: Path, source: ExampleSource, reporter: Reporter) -> DataSummary:
    """Scan the data, unless nothing has touched them since the store was made."""
    remembered = store / _SCAN
    if (store / MANIFEST).is_file() and remembered.is_file():
        known = json.loads(remembered.read_text())
        if known["stamp"] == source.stamp():
            return DataSummary.from_json(known["summary"])
    with reporter.task("scan", len(source), "rows") as advance:
        return scan(source, advance)


def _claim(store: Path, asked: Mapping[str, Any], prepared: Prepared) -> None:
    """Write down what is asked, or refuse when something else was asked of this folder before."""
    require_own_folder(store)
    asked = json.loads(json_text(asked))
    begun = store / _REQUEST
    if begun.is_file():
        lines = differences(json.loads(begun.read_text()), asked)
        if lines:
            listed = "".join(f"\n  {line}" for line in lines[:20])
            raise StoreMismatchError(
                f"The store '{store}' was begun by other settings:{listed}\n"
                "Use another --store path, or the settings that the store has."
            )
    make_folder(begun.parent)
    write_atomically(begun, json_text(asked).encode())
    scanned = {"stamp": prepared.source.stamp(), "summary": prepared.summary.to_json()}
    write_atomically(store / _SCAN, json_text(scanned).encode())


def _existing(path: Path) -> Store | None:
    if not (path / MANIFEST).is_file():
        return None
    store = Store.open(path)
    restore_metadata(path, store.manifest)
    return store


def _begin(settings: BuildSettings, prepared: Prepared, reporter: Reporter) -> Store:
    """Checkpoints, routes and an empty store."""
    checkpoints = prepared.given or _train(settings, prepared, reporter)
    plan, d_latent = _plan(settings, prepared, checkpoints, reporter)
    manifest = Manifest(
        n_examples=len(prepared.source),
        d_sketch=plan.d_sketch,
        d_latent=d_latent,
        shard_rows=settings.rows_a_shard(len(prepared.source)),
        learning_rates=tuple(c.learning_rate for c in plan.checkpoints),
        label_names=None if (names := prepared.source.label_names) is None else tuple(names),
        settings={"request": request(settings, prepared), "plan": plan.to_json()},
        provenance=_provenance(settings, prepared),
    )
    return Store.create(settings.store, manifest, _examples(prepared.source))


def _train(settings: BuildSettings, prepared: Prepared, reporter: Reporter) -> tuple[Checkpoint, ...]:
    recipe = TrainingSettings(
        epochs=settings.epochs,
        batch_size=settings.train_batch_size,
        n_checkpoints=settings.n_checkpoints,
        seed=settings.seed,
        device=settings.resolved_device(),
    )
    if settings.learning_rate is not None:
        recipe = dataclasses.replace(recipe, learning_rate=settings.learning_rate)
    steps = settings.epochs * -(-len(prepared.source) // settings.train_batch_size)
    with reporter.task("train", steps, "steps") as advance:
        seen = 0

        def follow(now: TrainingProgress) -> None:
            nonlocal seen
            advance(now.step - seen)
            seen = now.step

        folder = settings.store / "checkpoints"
        found = train(prepared.task, prepared.source, prepared.summary, folder, settings=recipe, progress=follow)
    return tuple(dataclasses.replace(c, path=c.path.relative_to(settings.store)) for c in found)


def _plan(
    settings: BuildSettings, prepared: Prepared, checkpoints: tuple[Checkpoint, ...], reporter: Reporter
) -> tuple[SketchPlan, int]:
    """Choose every parameter's route on a few examples at the last checkpoint; also gives the latent's size."""
    plan = plan_for(
        prepared.task,
        checkpoints=checkpoints,
        parameters=settings.parameters,
        d_sketch=settings.sketch_dim,
        seed=settings.seed,
        n_draws=settings.draws,
        block=BLOCK,
    )
    sketcher = Sketcher(plan, settings.store, settings.resolved_device(), prepared.task)
    batch = probe_batch(prepared.source)
    planned = sketcher.planned(batch)
    for route in planned.coverage.routes:
        if route.how != "rule":
            reporter.say(f"{route.parameter} ({route.n_elements:,} numbers) goes by {route.how}: {route.detail}")
    return planned, sketcher.gradients(len(checkpoints) - 1, batch).latents.shape[1]


def probe_batch(source: ExampleSource) -> Batch:
    """A few examples spread over the data."""
    n = min(_PROBE_EXAMPLES, len(source))
    return load_batch(source, np.linspace(0, len(source) - 1, n).astype(np.int64))


def _sketch(settings: BuildSettings, store: Store, reporter: Reporter) -> None:
    stage = SketchStage(settings.store, settings.batch_size, settings.resolved_device())
    total = store.n_examples * store.n_checkpoints
    left = sum(len(store.shard_range(shard)) for _, shard in store.pending())
    executor_for(settings.workers).run(stage, reporter, total=total, done=total - left)


def _provenance(settings: BuildSettings, prepared: Prepared) -> dict[str, Any]:
    """How the store was made, for its reader and for reopening the data; no part of its identity."""
    return {
        "source": prepared.source.describe(),
        "model": settings.model,
        "versions": {
            "gradstore": gradstore.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def _examples(source: ExampleSource) -> Iterator[pa.RecordBatch]:
    for start in range(0, len(source), _IDS_AT_A_TIME):
        rows = slice(start, min(start + _IDS_AT_A_TIME, len(source)))
        n = rows.stop - rows.start
        labels, paths = source.labels(rows), source.paths(rows)
        columns: dict[str, pa.Array[Any]] = {
            "id": pa.array(source.ids(rows), pa.string()),
            "label": pa.nulls(n, pa.int32()) if labels is None else pa.array(labels, pa.int32()),
            "path": pa.nulls(n, pa.string()) if paths is None else pa.array(paths, pa.string()),
        }
        yield pa.RecordBatch.from_pydict(columns)
