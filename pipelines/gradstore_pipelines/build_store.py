"""`build`: from a data set to a finished gradient store, resumable at every step.

    scan the data -> train, or take the given checkpoints -> plan and probe the gradients -> sketch every shard

Everything lives with the store, in its folder or its bucket; for one in a bucket, training goes on in the cache of
this machine, and its checkpoints are uploaded when it is done. `build/request.json` says what was asked before there is
a store, so that an interrupted training is continued by the same settings only; `build/scan.json` saves reading the
data again.
"""

from __future__ import annotations

import dataclasses
import functools
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
from gradstore.store.claims import Claims, joined
from gradstore.store.creation import require_own_place, restore_metadata
from gradstore.store.differences import differences
from gradstore.store.files import make_folder
from gradstore.store.layout import MANIFEST
from gradstore.store.local_files import upload
from gradstore.store.place import Location
from gradstore.store.sealed import json_text
from gradstore.task import Batch
from gradstore_pipelines.executors import executor_for
from gradstore_pipelines.one_at_a_time import one_at_a_time
from gradstore_pipelines.preparation import Prepared, prepare, probe_batch, request
from gradstore_pipelines.progress import Reporter, Silent
from gradstore_pipelines.remembered import remember_data
from gradstore_pipelines.settings import REQUEST, BuildSettings
from gradstore_pipelines.stages.sketch import SketchStage

_IDS_AT_A_TIME = 65_536


@dataclass(frozen=True)
class BuildResult:
    """What a build did."""

    store: Location
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
    with joined(settings.place, "preparing") as claims:
        begin = functools.partial(begin_store, settings, prepared, reporter)
        existing = functools.partial(_existing, settings)
        store = one_at_a_time(claims, "preparing the store", begin, existing, reporter.say)
        made = _sketch(settings, store, prepared.source.stamp(), claims, reporter) if any(store.pending()) else 0
    store.require_complete()
    store.remove_leftovers()
    return BuildResult(settings.store, store.n_examples, store.n_checkpoints, made)


def train_checkpoints(settings: BuildSettings, reporter: Reporter | None = None) -> bool:
    """The first half of `build` alone: the checkpoints. Returns whether there was anything to train.

    Raises:
        what `build` raises.
    """
    if is_trained(settings):
        return False
    reporter = reporter or Silent()
    prepared = prepare(settings, reporter)
    _claim(settings, request(settings, prepared), prepared)

    def make() -> bool:
        _train(settings, prepared, reporter)
        return True

    with joined(settings.place, "preparing") as claims:
        return one_at_a_time(claims, "training", make, lambda: is_trained(settings) or None, reporter.say)


def is_trained(settings: BuildSettings) -> bool:
    """Whether the store has its checkpoints, as far as a look at the disk tells."""
    folder = settings.folder / "checkpoints"
    found = len(list(folder.glob("checkpoint-*.safetensors"))) if folder.is_dir() else 0
    return bool(settings.checkpoints) or settings.place.exists(MANIFEST) or found == settings.n_checkpoints


def forget_derived(store: Store) -> None:
    """Signals, indexes and graphs may have been computed from damaged bytes of a shard that is now as it was
    committed: the commit records, which name what they were computed from, are then the same as before the damage.
    """
    for file in [*store.folder.glob("signals*.parquet"), *(store.folder / "indexes").glob("*")]:
        file.unlink(missing_ok=True)
    shutil.rmtree(store.folder / "graph", ignore_errors=True)


def _claim(settings: BuildSettings, asked: Mapping[str, Any], prepared: Prepared) -> None:
    """Write down what is asked, or refuse when something else was asked of this store before."""
    place = settings.place
    require_own_place(place)
    asked = json.loads(json_text(asked))
    if place.exists(REQUEST):
        lines = differences(json.loads(place.read(REQUEST)), asked)
        if lines:
            listed = "".join(f"\n  {line}" for line in lines[:20])
            raise StoreMismatchError(
                f"The store '{place.location}' was begun by other settings:{listed}\n"
                "Use another --store path, or the settings that the store has."
            )
    place.write(REQUEST, json_text(asked).encode())
    remember_data(settings, prepared.source, prepared.summary)


def _existing(settings: BuildSettings) -> Store | None:
    if not settings.place.exists(MANIFEST):
        return None
    store = Store.open(settings.store)
    restore_metadata(store.place, store.manifest)
    return store


def begin_store(settings: BuildSettings, prepared: Prepared, reporter: Reporter) -> Store:
    """Checkpoints, routes and an empty store."""
    checkpoints = _with_store(settings, prepared.given or _train(settings, prepared, reporter))
    probe = probe_batch(prepared.source)
    sketcher = _planned(settings, prepared, checkpoints, probe, reporter)
    plan = sketcher.plan
    manifest = Manifest(
        n_examples=len(prepared.source),
        d_sketch=plan.d_sketch,
        d_latent=sketcher.latents(len(checkpoints) - 1, probe).shape[1],
        shard_rows=prepared.shard_rows,
        learning_rates=tuple(c.learning_rate for c in plan.checkpoints),
        label_names=None if (names := prepared.source.label_names) is None else tuple(names),
        settings={"request": request(settings, prepared), "plan": plan.to_json()},
        provenance=_provenance(settings, prepared),
        parameter_sets=plan.parameters,
        layers=sketcher.engine.layers if settings.per_layer_norms else None,
        n_draws=plan.n_draws,
        sketch_dtype=settings.sketch_dtype,
        n_classes=sketcher.n_classes(probe),
    )
    return Store.create(settings.store, manifest, example_batches(prepared.source))


def _train(settings: BuildSettings, prepared: Prepared, reporter: Reporter) -> tuple[Checkpoint, ...]:
    recipe = training_of(settings)
    steps = settings.epochs * -(-len(prepared.source) // settings.train_batch_size)
    with reporter.task("train", steps, "steps") as advance:
        seen = 0

        def follow(now: TrainingProgress) -> None:
            nonlocal seen
            advance(now.step - seen)
            seen = now.step

        folder = settings.folder / "checkpoints"
        found = train(prepared.task, prepared.source, prepared.summary, folder, settings=recipe, progress=follow)
    return tuple(dataclasses.replace(c, path=c.path.relative_to(settings.folder)) for c in found)


def training_of(settings: BuildSettings) -> TrainingSettings:
    """What a build asks of the training."""
    recipe = TrainingSettings(
        epochs=settings.epochs,
        batch_size=settings.train_batch_size,
        n_checkpoints=settings.n_checkpoints,
        seed=settings.seed,
        device=settings.resolved_device(),
    )
    if settings.learning_rate is None:
        return recipe
    return dataclasses.replace(recipe, learning_rate=settings.learning_rate)


def _with_store(settings: BuildSettings, checkpoints: tuple[Checkpoint, ...]) -> tuple[Checkpoint, ...]:
    """Checkpoints as the store names them; into a bucket they go first, given ones as well."""
    place = settings.place
    if place.local() is not None:
        return checkpoints
    kept = tuple(_inside(settings, number, checkpoint) for number, checkpoint in enumerate(checkpoints))
    for checkpoint in kept:
        upload(settings.folder / checkpoint.path, place, checkpoint.path.as_posix())
    return kept


def _inside(settings: BuildSettings, number: int, checkpoint: Checkpoint) -> Checkpoint:
    """A given one copied to where those lie that are trained here."""
    if not checkpoint.path.is_absolute():
        return checkpoint
    path = Path("checkpoints") / f"{number:03}-{checkpoint.path.name}"
    make_folder((settings.folder / path).parent)
    shutil.copyfile(checkpoint.path, settings.folder / path)
    return dataclasses.replace(checkpoint, path=path)


def _planned(
    settings: BuildSettings,
    prepared: Prepared,
    checkpoints: tuple[Checkpoint, ...],
    probe: Batch,
    reporter: Reporter,
) -> Sketcher:
    """Choose every parameter's route on a few examples at the last checkpoint."""
    plan = plan_for(
        prepared.task,
        checkpoints=checkpoints,
        parameters=settings.parameters,
        d_sketch=settings.sketch_dim,
        seed=settings.seed,
        n_draws=settings.draws,
        block=prepared.block,
    )
    sketcher = Sketcher(plan, settings.folder, settings.resolved_device(), prepared.task)
    sketcher.planned(probe)
    _report_fallbacks(sketcher, probe, reporter)
    return sketcher


def _report_fallbacks(sketcher: Sketcher, batch: Batch, reporter: Reporter) -> None:
    """Name every parameter that no rule covers, and what that costs."""
    fallbacks = [route for route in sketcher.engine.coverage.routes if route.how != "rule"]
    for route in fallbacks:
        reporter.say(f"{route.parameter} ({route.n_elements:,} numbers) goes by {route.how}: {route.detail}")
    if fallbacks:
        rules = sketcher.time_shares(batch)["rule"]
        reporter.say(f"Gradients without a rule take about {1 - rules:.0%} of the time.")


def _sketch(settings: BuildSettings, store: Store, stamp: str, claims: Claims, reporter: Reporter) -> int:
    """How many shards this run made."""
    claims.say("sketching")
    stage = SketchStage.planned(store, settings.batch_size, settings.sketching_device(), stamp)
    total = store.n_examples * store.n_checkpoints
    left = sum(len(store.shard_range(shard)) for _, shard in store.pending())
    executor = executor_for(settings.where(), device=stage.device, folder=_logs(store))
    made = executor.run(stage, reporter, total=total, done=total - left, claims=claims)
    store.refresh()
    forget_derived(store)
    return made


def _logs(store: Store) -> Path | None:
    """A folder that all nodes see, where there is one: the store's own."""
    own = store.place.local()
    return None if own is None else own / "build"


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


def example_batches(source: ExampleSource) -> Iterator[pa.RecordBatch]:
    """Id, label and path of every example, as `Store.create` wants them."""
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
