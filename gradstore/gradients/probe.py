"""The probe: plan every parameter's route, and hold the engine against plain autograd before anything is stored.

An example's loss must be the same alone and in a batch. Its gradients are held against plain autograd's. A parameter
that is also read where the engine cannot see it (a function of the user's own, a scripted module) shows as a wrong norm
and is sent to `vmap`; what `vmap` cannot do goes one example at a time. What still differs is an error: stored numbers
that nobody checked are worse than none.

Why the reference of what goes by rules is autograd over the whole batch, a loss at a time, and not each example alone:
in another batch matrix products round otherwise, and a ReLU whose input is nearly 0 then takes the other side. Of
ResNet-18's million units, on three examples, one does so in every twentieth model with fresh weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from gradstore.errors import MixedExamplesError, ProbeError
from gradstore.gradients import fallback
from gradstore.gradients.capture import InputChangedError, Layouts, Operation, UnseenOperationError
from gradstore.gradients.coverage import Coverage, How, Route
from gradstore.gradients.rules import NoRuleError
from gradstore.gradients.sink import GradientSink
from gradstore.task import Batch

if TYPE_CHECKING:
    from gradstore.gradients.engine import GradientEngine


def plan(engine: GradientEngine, batch: Batch) -> Coverage:
    """Routes that agree with plain autograd on `batch`; see `GradientEngine.prepare` for what it raises."""
    engine.refuse_training_mode()
    losses = _losses_together(engine, batch)
    engine.refuse_training_mode()  # a loss may have called model.train()
    layouts, operations = engine.find_layouts(batch)
    tolerance = _tolerance(engine, operations)
    _refuse_mixed(losses, _losses_alone(engine, batch), tolerance)
    engine.coverage = _without_failures(engine, batch, _by_rules(engine, layouts, operations))
    found, expected = _found_and_expected(engine, batch)
    ways: tuple[How, How] = ("vmap", "loop")
    for how in ways:
        wrong = _wrong(found, expected, tolerance)
        if not wrong:
            break
        reason = "it is read where the engine cannot see it"
        engine.coverage = _without_failures(engine, batch, engine.coverage.moved(wrong, how, reason))
        found, expected = _found_and_expected(engine, batch)
    _refuse_disagreement(found, expected, tolerance)
    return engine.coverage


def _found_and_expected(engine: GradientEngine, batch: Batch) -> tuple[GradientSink, GradientSink]:
    """What the engine gives by its present routes, and what plain autograd does."""
    _, found = engine.collect(batch)
    return found, _reference(engine, batch)


def _by_rules(engine: GradientEngine, layouts: Layouts, operations: Sequence[Operation]) -> Coverage:
    """Every parameter by the rules of the operations that read it."""
    readers: dict[str, dict[str, None]] = {name: {} for name in engine.parameters}
    for operation in operations:
        for name in operation.sources:
            readers[name][operation.name] = None
    routes = [
        Route(name, p.numel(), "rule", " + ".join(readers[name]) or "read by nothing")
        for name, p in engine.parameters.items()
    ]
    return Coverage(tuple(routes), layouts)


def _tolerance(engine: GradientEngine, operations: Sequence[Operation]) -> float:
    """About the square root of the coarsest precision: rounding stays far below, a mistake far above.

    That of the parameters, or, under autocast, of what is computed from them.
    """
    dtypes = [parameter.dtype for parameter in engine.parameters.values()]
    dtypes += [operation.dtype for operation in operations]
    return 3.0 * math.sqrt(max(torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point))


def _losses_together(engine: GradientEngine, batch: Batch) -> Float[Tensor, " example"]:
    with torch.no_grad():
        losses = engine.loss(batch)
    engine.check_losses(losses, batch)
    return losses


def _losses_alone(engine: GradientEngine, batch: Batch) -> Float[Tensor, " example"]:
    with torch.no_grad():
        return torch.cat([engine.loss(batch[row : row + 1]) for row in range(len(batch))])


def _reference(engine: GradientEngine, batch: Batch) -> GradientSink:
    """Plain autograd's gradients, of one forward pass where the engine's way is one, else of each example alone."""
    sink = engine.sink(len(batch))
    by_rule = engine.coverage.by("rule")
    others = [name for name in engine.parameters if name not in by_rule]
    if by_rule:
        fallback.emit(engine.batched(by_rule, batch), sink, engine.dtype)
    if others:
        fallback.emit(engine.looped(others, batch), sink, engine.dtype)
    for name, sq_norms in sink.sq_norms.items():
        if not bool(torch.isfinite(sq_norms).all()):
            raise ProbeError(
                f"Plain autograd gives a gradient of {name} that is not finite, on examples of the probe alone. "
                "Does the loss overflow? Half precision does so early: try the model in bfloat16 or float32."
            )
    return sink


def _refuse_mixed(together: Tensor, alone: Tensor, tolerance: float) -> None:
    scale = alone.abs() + 1e-3 * alone.abs().mean()
    worst = ((together - alone).abs() / scale.clamp_min(torch.finfo(alone.dtype).tiny)).argmax()
    if (together[worst] - alone[worst]).abs() > tolerance * scale[worst]:
        raise MixedExamplesError(
            f"Example {int(worst)} of the probe has loss {float(alone[worst]):.6g} alone and "
            f"{float(together[worst]):.6g} in a batch of {len(alone)}. A loss must depend on its own example only: no "
            "average or contrast over the batch, no batch statistics, no randomness except from `noise`."
        )


def _without_failures(engine: GradientEngine, batch: Batch, coverage: Coverage) -> Coverage:
    """Move what a rule or vmap refuses to the next route, until the engine runs."""
    coverage = _vmap_or_loop(engine, batch, coverage)
    while True:
        engine.coverage = coverage
        try:
            engine.collect(batch)
        except (NoRuleError, InputChangedError, UnseenOperationError) as error:
            coverage = engine.coverage.moved(error.sources, "vmap", str(error))
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


def _wrong(found: GradientSink, expected: GradientSink, tolerance: float) -> list[str]:
    total = expected.total_sq_norms().sqrt()
    return [
        name
        for name, sq in expected.sq_norms.items()
        if not _agrees(found.sq_norms[name].sqrt(), sq.sqrt(), total, tolerance)
    ]


def _agrees(found: Tensor, expected: Tensor, total: Tensor, tolerance: float) -> bool:
    """Within the tolerance for every example; what is not a number agrees with nothing."""
    return bool(((found - expected).abs() <= tolerance * (expected + 1e-3 * total)).all())


def _refuse_disagreement(found: GradientSink, expected: GradientSink, tolerance: float) -> None:
    if wrong := _wrong(found, expected, tolerance):
        raise ProbeError(
            f"The engine and plain autograd disagree about {', '.join(wrong[:5])}: nothing was stored. "
            "Is the loss deterministic? Randomness must come from `noise`."
        )
    difference = torch.linalg.vector_norm(found.whole_sketch() - expected.whole_sketch(), dim=1)
    if not bool((difference <= tolerance * expected.total_sq_norms().sqrt()).all()):
        raise ProbeError("The engine's sketches differ from those of plain autograd: nothing was stored.")
