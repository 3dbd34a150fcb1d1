"""`build`: from a data set to a finished gradient store, resumable at every step.

    scan the data -> train, or take the given checkpoints -> plan and probe the gradients -> sketch every shard

Everything lives in the store's folder. `build/request.json` says what was asked before there is a store, so that
an interrupted training is continued by the same settings only; `build/scan.json` saves reading the data again.
"""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

import gradstore
from gradstore.data import ExampleSource
from gradstore.errors import StoreMismatchError
from gradstore.models.checkpoints import Checkpoint
from gradstore.models.training import TrainingProgress, TrainingSettings, train
from gradstore.sketcher import Sketcher, plan_for
from gradstore.store import Manifest, Store
from gradstore.store.creation import require_own_folder, restore_metadata
from gradstore.store.files import make_folder, write_atomically
from gradstore.store.layout import MANIFEST
from gradstore.store.manifest import differences, json_text
from gradstore.task import Batch
from gradstore_pipelines.executors import executor_for
from gradstore_pipelines.preparation import SCAN, Prepared, prepare, probe_batch, request
from gradstore_pipelines.progress import Reporter, Silent
from gradstore_pipelines.settings import BuildSettings
from gradstore_pipelines.stages.sketch import SketchStage

_IDS_AT_A_TIME = 65_536


@dataclass(frozen=True)
class BuildResult:
    """What a build did."""

    store: Path
    n_examples: int
    n_checkpoints: int
    sketched_shards: int
    """Shards made by this run; 0 when everything was there already."""


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
    _claim(settings, request(settings, prepared), prepared)
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
    """Signals, indexes and graphs may have been computed from damaged bytes of a shard that is now as it was
    committed: the commit records, which name what they were computed from, are then the same as before the damage.
    """
    for file in [*store.path.glob("signals*.parquet"), *(store.path / "indexes").glob("*")]:
        file.unlink(missing_ok=True)
    shutil.rmtree(store.path / "graph", ignore_errors=True)


def _claim(settings: BuildSettings, asked: Mapping[str, Any], prepared: Prepared) -> None:
    """Write down what is asked, or refuse when something else was asked of this folder before."""
    store, begun = settings.store, settings.request_file
    require_own_folder(store)
    asked = json.loads(json_text(asked))
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
    write_atomically(store / SCAN, json_text(scanned).encode())


def _existing(path: Path) -> Store | None:
    if not (path / MANIFEST).is_file():
        return None
    store = Store.open(path)
    restore_metadata(path, store.manifest)
    return store


def _begin(settings: BuildSettings, prepared: Prepared, reporter: Reporter) -> Store:
    """Checkpoints, routes and an empty store."""
    checkpoints = prepared.given or _train(settings, prepared, reporter)
    sketcher, d_latent = _planned(settings, prepared, checkpoints, reporter)
    plan = sketcher.plan
    manifest = Manifest(
        n_examples=len(prepared.source),
        d_sketch=plan.d_sketch,
        d_latent=d_latent,
        shard_rows=prepared.shard_rows,
        learning_rates=tuple(c.learning_rate for c in plan.checkpoints),
        label_names=None if (names := prepared.source.label_names) is None else tuple(names),
        settings={"request": request(settings, prepared), "plan": plan.to_json()},
        provenance=_provenance(settings, prepared),
        parameter_sets=plan.parameters,
        layers=sketcher.engine.layers if settings.per_layer_norms else None,
        n_draws=plan.n_draws,
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


def _planned(
    settings: BuildSettings, prepared: Prepared, checkpoints: tuple[Checkpoint, ...], reporter: Reporter
) -> tuple[Sketcher, int]:
    """Choose every parameter's route on a few examples at the last checkpoint; also gives the latent's size."""
    plan = plan_for(
        prepared.task,
        checkpoints=checkpoints,
        parameters=settings.parameters,
        d_sketch=settings.sketch_dim,
        seed=settings.seed,
        n_draws=settings.draws,
        block=prepared.block,
    )
    sketcher = Sketcher(plan, settings.store, settings.resolved_device(), prepared.task)
    batch = probe_batch(prepared.source)
    sketcher.planned(batch)
    _report_fallbacks(sketcher, batch, reporter)
    return sketcher, sketcher.latents(len(checkpoints) - 1, batch).shape[1]


def _report_fallbacks(sketcher: Sketcher, batch: Batch, reporter: Reporter) -> None:
    """Name every parameter that no rule covers, and what that costs."""
    fallbacks = [route for route in sketcher.engine.coverage.routes if route.how != "rule"]
    for route in fallbacks:
        reporter.say(f"{route.parameter} ({route.n_elements:,} numbers) goes by {route.how}: {route.detail}")
    if fallbacks:
        rules = sketcher.time_shares(batch)["rule"]
        reporter.say(f"Gradients without a rule take about {1 - rules:.0%} of the time.")


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
