"""What every gradient rule must satisfy; a new rule inherits `RuleContract` and says how to make its layer.

The oracle is plain autograd, one example at a time. Norms and sketches are compared parameter by parameter, each
relative to that parameter's own gradient, so that a large layer cannot hide a small one; and a parameter whose
gradient is zero for every example is refused as a test, since anything that does nothing would pass it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradstore.gradients import Coverage, GradientEngine
from gradstore.sketch import matrix_shape
from gradstore.task import Batch
from gradstore.testing.toys import ReadoutTask, autograd_gradients, batch_of

N_EXAMPLES = 5
_D_SKETCH = 64


def check_against_autograd(
    task: ReadoutTask,
    batch: Batch,
    tolerance: float,
    *,
    n_probed: int = 2,
    tracked: str = "all",
    oracle: ReadoutTask | None = None,
) -> Coverage:
    """Exact norms and sketches of every parameter equal those of plain autograd; returns the routes taken.

    Args:
        task: the model under test.
        batch: examples to compare; the engine is prepared on the first `n_probed` alone.
        tolerance: largest error of a parameter's norm or sketch, relative to the norm of its gradient.
        tracked: pattern of the parameters to track.
        oracle: makes the model that plain autograd runs, where that is another one of the same parameters.

    Raises:
        AssertionError: says which parameter differs, or has no gradient to compare.
    """
    oracle = oracle or task
    expected = autograd_gradients(oracle, oracle.build(), batch)
    engine = _engine_by_parameter(task, tracked)
    coverage = engine.prepare(batch[:n_probed])
    found = engine.run(batch)
    for name in engine.parameters:
        norms = expected[name].reshape(len(batch), -1).double().norm(dim=1)
        assert bool((norms > 0).any()), f"{name} has no gradient at all: nothing is tested"
        error = (found.sets[name].sq_norms.sqrt() - norms).abs()
        assert bool((error <= tolerance * norms).all()), f"norms of {name} differ: {error / norms}"
        error = (found.sets[name].sketches - _sketch(engine, name, expected[name])).norm(dim=1)
        # A sketch's length is that of its gradient give or take its spread, 1 / sqrt(d): 4 leaves room.
        assert bool((error <= 4 * tolerance * norms).all()), f"sketches of {name} differ: {error / norms}"
    return coverage


def routes(coverage: Coverage) -> Mapping[str, str]:
    """Parameter -> how its gradient is taken."""
    return {route.parameter: route.how for route in coverage.routes}


def require_rules(coverage: Coverage) -> None:
    """Every parameter goes by a rule."""
    others = [route for route in coverage.routes if route.how != "rule"]
    assert not others, others


def check_rule(layer: Callable[[], nn.Module], inputs: Tensor) -> None:
    """The contract in one call, for lists of cases: by rules, equal to autograd in float64 and float32."""
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        batch = batch_of(inputs.to(dtype) if inputs.is_floating_point() else inputs)
        require_rules(check_against_autograd(ReadoutTask(layer, dtype), batch, tolerance))


class RuleContract(ABC):
    """The engine against plain autograd, one example at a time. Tolerances are those of the dtypes."""

    @abstractmethod
    def layer(self) -> nn.Module:
        """The layer under test (random weights)."""

    @abstractmethod
    def inputs(self, n_examples: int) -> Tensor:
        """[n_examples, …] inputs for it."""

    def test_norms_and_sketches_equal_autograd_by_rules_alone(self) -> None:
        check_rule(self.layer, self.inputs(N_EXAMPLES))

    def test_an_example_does_not_see_its_neighbours(self) -> None:
        batch = batch_of(self.inputs(N_EXAMPLES))
        task = ReadoutTask(self.layer)
        engine = GradientEngine(task, task.build(), "all", d_sketch=16, seed=0)
        engine.prepare(batch[:2])
        whole, part = engine.run(batch).sets["all"], engine.run(batch[2:4]).sets["all"]
        torch.testing.assert_close(part.sketches, whole.sketches[2:4], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(part.sq_norms, whole.sq_norms[2:4], rtol=1e-5, atol=0)


def _engine_by_parameter(task: ReadoutTask, tracked: str) -> GradientEngine:
    """An engine for which every tracked parameter is a set of its own."""
    whole = GradientEngine(task, task.build(), tracked, d_sketch=1, seed=0)
    return GradientEngine(task, task.build(), {name: name for name in whole.parameters}, d_sketch=_D_SKETCH, seed=3)


def _sketch(
    engine: GradientEngine, name: str, grads: Float[Tensor, "example ..."]
) -> Float[Tensor, "example d_sketch"]:
    """The projection of gradients that are known in full."""
    buffer = engine.projection.buffer(len(grads))
    buffer.add_dense(name, grads.to(engine.dtype).reshape(len(grads), *matrix_shape(tuple(grads.shape[1:]))))
    return buffer.result()
