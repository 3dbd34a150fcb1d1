"""`fidelity`: how good a store's sketches are on its own data, and what other lengths would give and cost.

A seeded sample of the store's examples goes through plain autograd, each alone, at the store's own checkpoints;
sketches of every length are made of those gradients by the store's own projection. The build need not be finished:
checkpoints and data are all that is read, and the stored norms where they are there.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor, nn

from gradstore.data import load_batch, reopen
from gradstore.devices import usable_device
from gradstore.sketch.fidelity import Agreement, Fidelity, SampledCheckpoint, measure
from gradstore.sketch.gram import Blocks, GradientSample
from gradstore.sketcher import Sketcher, SketchPlan, sketcher_of
from gradstore.store import Store, layout
from gradstore.store.manifest import SketchDtype
from gradstore.task import Batch, tracked_parameters
from gradstore_pipelines.fidelity_result import FidelityResult, MeasuredDtype, MeasuredLength
from gradstore_pipelines.fidelity_settings import FidelitySettings
from gradstore_pipelines.progress import Advance, Reporter, Silent

Parameters = Mapping[str, nn.Parameter]


def fidelity(settings: FidelitySettings, reporter: Reporter | None = None) -> FidelityResult:
    """Measure sketches of several lengths against exact gradients of a sample of the store's examples.

    Raises:
        StoreNotFoundError: there is no store.
        SourceError: the data have gone or changed since the build.
        CheckpointError: so have the weights.
        QueryError: a sample of fewer than three examples, nothing but zero gradients, or no such set of parameters.
    """
    reporter, store = reporter or Silent(), _open(settings)
    plan = SketchPlan.from_json(store.manifest.settings["plan"])
    sketcher = sketcher_of(store, usable_device(settings.device))
    rows, chosen = _sample(store, settings, reporter), _checkpoints(store, settings, reporter)
    batch = load_batch(reopen(store.manifest.provenance["source"]), rows)
    tracked = _tracked(sketcher, store.parameters)
    total = _announce(GradientSample(len(rows), tracked, lambda rows: []), settings, reporter) * len(chosen)
    with reporter.task("exact gradients", total, "gradients") as advance, _full_precision():
        sampled = _sampled_checkpoints(sketcher, tracked, chosen, batch, advance)
        lengths, memory = settings.lengths(store.d_sketch), settings.memory * 1_000_000
        dtype = store.manifest.sketch_dtype
        found = measure(sampled, lengths, plan.seed, memory, own=store.d_sketch, dtype=dtype)
    return _result(store, settings, rows, chosen, found)


def _open(settings: FidelitySettings) -> Store:
    """The store, read for the set of parameters that is asked for."""
    store = Store.open(settings.store)
    return store if settings.parameters is None else store.of_set(settings.parameters)


def _tracked(sketcher: Sketcher, pattern: str) -> Parameters:
    """The parameters of one set; the engine may track several."""
    engine = sketcher.engine
    return {name: engine.parameters[name] for name in tracked_parameters(engine.task, engine.model, pattern)}


def _result(
    store: Store,
    settings: FidelitySettings,
    rows: Int64[np.ndarray, " sampled"],
    chosen: Sequence[int],
    found: Fidelity,
) -> FidelityResult:
    recommended = found.recommended(settings.recall)
    return FidelityResult(
        store=store.location,
        n_examples=len(rows),
        n_stored=store.n_examples,
        parameters=store.parameters,
        checkpoints=tuple(chosen),
        sketch_dim=store.d_sketch,
        sketch_dtype=store.manifest.sketch_dtype,
        lengths=tuple(_with_cost(store, a, store.manifest.sketch_dtype) for a in found.agreements),
        dtypes=tuple(MeasuredDtype(dtype, _with_cost(store, a, dtype)) for dtype, a in found.dtypes.items()),
        recall_asked=settings.recall,
        recommended=None if recommended is None else recommended.d_sketch,
        norm_error=_norm_error(store, rows, chosen, found.norms) if store.is_complete else None,
    )


def _sample(store: Store, settings: FidelitySettings, reporter: Reporter) -> Int64[np.ndarray, " sampled"]:
    """Row numbers, ascending."""
    if settings.sample > store.n_examples:
        reporter.say(
            f"The store holds {store.n_examples:,} examples, fewer than --sample {settings.sample}: all are taken."
        )
    size = min(settings.sample, store.n_examples)
    return np.sort(np.random.default_rng(settings.seed).choice(store.n_examples, size, replace=False))


def _checkpoints(store: Store, settings: FidelitySettings, reporter: Reporter) -> list[int]:
    """Evenly spread over the training, the last one among them."""
    asked, last = settings.checkpoints or store.n_checkpoints, store.n_checkpoints - 1
    if asked > store.n_checkpoints:
        reporter.say(
            f"The store has {store.n_checkpoints} checkpoints, fewer than --checkpoints {asked}: all are used."
        )
    spread = np.linspace(0, last, min(asked, store.n_checkpoints))
    return sorted(last - round(step) for step in spread)


def _announce(sample: GradientSample, settings: FidelitySettings, reporter: Reporter) -> int:
    """How many gradients a checkpoint takes; says so where the sample does not fit into memory at once."""
    blocks = Blocks.within(sample, settings.memory * 1_000_000)
    if blocks.n_gradients > sample.n_examples:
        megabytes = sample.n_numbers * sample.dtype.itemsize / 1e6
        reporter.say(
            f"A gradient takes {megabytes:,.1f} MB: {blocks.held} are held at a time and {blocks.n_gradients:,} "
            "computed at each checkpoint. More --memory, a smaller --sample or fewer --checkpoints make that quicker."
        )
    return blocks.n_gradients


def _sampled_checkpoints(
    sketcher: Sketcher, tracked: Parameters, chosen: Sequence[int], batch: Batch, advance: Advance
) -> Iterator[SampledCheckpoint]:
    """Loads the weights of each checkpoint as it comes."""
    for checkpoint in chosen:
        sketcher.load(checkpoint)
        gradients = functools.partial(_exact_gradients, sketcher, tracked, batch, advance)
        sample = GradientSample(len(batch), tracked, gradients)
        yield SampledCheckpoint(checkpoint, sketcher.plan.checkpoints[checkpoint].learning_rate, sample)


def _exact_gradients(
    sketcher: Sketcher, tracked: Parameters, batch: Batch, advance: Advance, rows: range
) -> Iterator[dict[str, Tensor]]:
    """Plain autograd, a batch of one."""
    for row in rows:
        loss = sketcher.engine.loss(batch[row : row + 1].to(sketcher.device)).sum()
        grads = torch.autograd.grad(loss, list(tracked.values()), allow_unused=True, materialize_grads=True)
        yield {name: grad.to_dense() for name, grad in zip(tracked, grads, strict=True)}
        advance(1)


def _full_precision() -> AbstractContextManager[None]:
    """TF32, cuDNN's default for convolutions, would be off by more than long sketches are."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def _with_cost(store: Store, agreement: Agreement, dtype: SketchDtype) -> MeasuredLength:
    """As if the store were of this length and dtype."""
    like = dataclasses.replace(store.manifest, d_sketch=agreement.d_sketch, sketch_dtype=dtype, format_version=3)
    a_row = sum(a.row_bytes for a in layout.arrays(like) if a.parameters in (None, store.parameters))
    return MeasuredLength(agreement, a_row, a_row * store.n_examples * store.n_checkpoints)


def _norm_error(
    store: Store,
    rows: Int64[np.ndarray, " sampled"],
    chosen: Sequence[int],
    exact: Float64[np.ndarray, "checkpoint sampled"],
) -> float:
    stored = np.stack([store.norms(checkpoint)[rows] for checkpoint in chosen])
    return float((np.abs(stored - exact)[exact > 0] / exact[exact > 0]).max())
