"""The probe: plan every parameter's route, and hold the engine against plain autograd before anything is stored.

The reference takes each example alone, batch of one; the engine takes them together. A parameter whose
gradient does not all pass through its module's output (used through functions, shared, called on something
without an axis of examples) shows as a wrong norm and is sent to `vmap`; what `vmap` cannot do goes one example
at a time. What still differs is an error: stored numbers that nobody checked are worse than none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradstore.errors import MixedExamplesError, ProbeError
from gradstore.gradients import fallback
from gradstore.gradients.capture import InputChangedError
from gradstore.gradients.coverage import Coverage, How
from gradstore.gradients.rules import NoRuleError
from gradstore.gradients.sink import GradientSink
from gradstore.task import Batch

if TYPE_CHECKING:
    from gradstore.gradients.engine import GradientEngine


@dataclass(frozen=True)
class _Reference:
    losses: Float[Tensor, " example"]
    sink: GradientSink


def plan(engine: GradientEngine, batch: Batch) -> Coverage:
    """Routes that agree with plain autograd on `batch`; see `GradientEngine.prepare` for what it raises."""
    engine.refuse_training_mode()
    losses = _losses_together(engine, batch)
    engine.refuse_training_mode()  # a loss may have called model.train()
    reference = _reference(engine, batch)
    _refuse_mixed(engine, losses, reference.losses)
    engine.coverage = _without_failures(engine, batch)
    ways: tuple[How, How] = ("vmap", "loop")
    for how in ways:
        _, sink = engine.collect(batch)
        wrong = _wrong(engine, sink, reference.sink)
        if not wrong:
            break
        reason = "its gradient does not all pass through its module's output"
        engine.coverage = _without_failures(engine, batch, engine.coverage.moved(wrong, how, reason))
    _refuse_disagreement(engine, batch, reference.sink)
    return engine.coverage


def _losses_together(engine: GradientEngine, batch: Batch) -> Float[Tensor, " example"]:
    with torch.no_grad():
        losses = engine.loss(batch)
    engine.check_losses(losses, batch)
    return losses


def _reference(engine: GradientEngine, batch: Batch) -> _Reference:
    sink = GradientSink(engine.projection.buffer(len(batch)), len(batch))
    fallback.emit(engine.looped(list(engine.parameters), batch), sink, engine.dtype)
    with torch.no_grad():
        losses = torch.cat([engine.loss(batch[row : row + 1]) for row in range(len(batch))])
    return _Reference(losses, sink)


def _refuse_mixed(engine: GradientEngine, together: Tensor, alone: Tensor) -> None:
    scale = alone.abs() + 1e-3 * alone.abs().mean()
    worst = ((together - alone).abs() / scale.clamp_min(torch.finfo(alone.dtype).tiny)).argmax()
    if (together[worst] - alone[worst]).abs() > _tolerance(engine) * scale[worst]:
        raise MixedExamplesError(
            f"Example {int(worst)} of the probe has loss {float(alone[worst]):.6g} alone and "
            f"{float(together[worst]):.6g} in a batch of {len(alone)}. A loss must depend on its own example only: no "
            "average or contrast over the batch, no batch statistics, no randomness except from `noise`."
        )


def _without_failures(engine: GradientEngine, batch: Batch, coverage: Coverage | None = None) -> Coverage:
    """Move what a rule or vmap refuses to the next route, until the engine runs."""
    coverage = _vmap_or_loop(engine, batch, coverage or engine.coverage)
    while True:
        engine.coverage = coverage
        try:
            engine.collect(batch)
        except NoRuleError as error:
            coverage = coverage.moved(error.parameters, "vmap", str(error))
        except InputChangedError as error:
            coverage = coverage.moved(engine.names_of(error.module), "vmap", str(error))
        else:
            return coverage
        coverage = _vmap_or_loop(engine, batch, coverage)


def _vmap_or_loop(engine: GradientEngine, batch: Batch, coverage: Coverage) -> Coverage:
    names = coverage.by("vmap")
    if not names:
        return coverage
    try:
        list(engine.vmapped(names, batch))
    except Exception as error:  # whatever the user's loss runs into under vmap: the loop is there for it
        return coverage.moved(names, "loop", f"vmap cannot: {str(error).splitlines()[0][:120]}")
    return coverage


def _wrong(engine: GradientEngine, found: GradientSink, expected: GradientSink) -> list[str]:
    total = expected.total_sq_norms().sqrt()
    return [
        name
        for name, sq in expected.sq_norms.items()
        if bool(_differs(engine, found.sq_norms[name].sqrt(), sq.sqrt(), total).any())
    ]


def _differs(engine: GradientEngine, found: Tensor, expected: Tensor, total: Tensor) -> Bool[Tensor, " example"]:
    return (found - expected).abs() > _tolerance(engine) * (expected + 1e-3 * total)


def _refuse_disagreement(engine: GradientEngine, batch: Batch, expected: GradientSink) -> None:
    _, found = engine.collect(batch)
    if wrong := _wrong(engine, found, expected):
        raise ProbeError(
            f"The engine and plain autograd disagree about {', '.join(wrong[:5])}: nothing was stored. "
            "Is the loss deterministic? Randomness must come from `noise`."
        )
    difference = torch.linalg.vector_norm(found.sketch.result() - expected.sketch.result(), dim=1)
    if bool((difference > _tolerance(engine) * expected.total_sq_norms().sqrt()).any()):
        raise ProbeError("The engine's sketches differ from those of plain autograd: nothing was stored.")


def _tolerance(engine: GradientEngine) -> float:
    """About the square root of the parameters' precision: rounding stays far below, a mistake far above."""
    dtype = next(iter(engine.parameters.values())).dtype
    return 3.0 * math.sqrt(torch.finfo(dtype).eps)
