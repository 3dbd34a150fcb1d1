"""What every gradient rule must satisfy; a new rule inherits `RuleContract` and says how to make its layer."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from gradstore.gradients import GradientEngine
from gradstore.testing.toys import ReadoutTask, autograd_gradients, batch_of

N_EXAMPLES = 5


class RuleContract(ABC):
    """The engine against plain autograd, one example at a time. Tolerances are those of the dtypes."""

    @abstractmethod
    def layer(self) -> nn.Module:
        """The layer under test (random weights)."""

    @abstractmethod
    def inputs(self, n_examples: int) -> Tensor:
        """[n_examples, …] inputs for it."""

    def model(self) -> nn.Module:
        """The layer in front of a plain one, so that a gradient comes back through something."""
        return self.layer()

    def _compare(self, dtype: torch.dtype, tolerance: float) -> None:
        torch.manual_seed(1)
        inputs = self.inputs(N_EXAMPLES)
        batch = batch_of(inputs.to(dtype) if inputs.is_floating_point() else inputs)
        task = ReadoutTask(self.model, dtype)
        expected = autograd_gradients(task, task.build(), batch)
        engine = GradientEngine(task, task.build(), "all", d_sketch=64, seed=3)
        engine.prepare(batch[:2])
        _, sink = engine.collect(batch)
        buffer = engine.projection.buffer(N_EXAMPLES)
        for name, grad in expected.items():
            norms = grad.flatten(1).double().norm(dim=1)
            error = (sink.sq_norms[name].sqrt() - norms).abs()
            assert bool((error <= tolerance * norms.clamp_min(1e-6)).all()), (name, error)
            buffer.add_dense(name, grad.reshape(N_EXAMPLES, *_matrix(grad)))
        error = (sink.sketch.result() - buffer.result()).norm(dim=1)
        assert bool((error <= 4 * tolerance * sink.total_sq_norms().sqrt()).all()), error

    def test_norms_and_sketch_equal_autograd_in_float64(self) -> None:
        self._compare(torch.float64, 1e-10)

    def test_norms_and_sketch_equal_autograd_in_float32(self) -> None:
        self._compare(torch.float32, 1e-5)

    def test_every_parameter_of_the_layer_takes_its_rule(self) -> None:
        torch.manual_seed(1)
        task = ReadoutTask(self.model)
        coverage = GradientEngine(task, task.build(), "all", d_sketch=8, seed=0).prepare(batch_of(self.inputs(2)))
        assert {route.how for route in coverage.routes} == {"rule"}

    def test_an_example_does_not_see_its_neighbours(self) -> None:
        torch.manual_seed(1)
        batch = batch_of(self.inputs(N_EXAMPLES))
        task = ReadoutTask(self.model)
        engine = GradientEngine(task, task.build(), "all", d_sketch=16, seed=0)
        engine.prepare(batch[:2])
        whole, part = engine.run(batch), engine.run(batch[2:4])
        torch.testing.assert_close(part.sketches, whole.sketches[2:4], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(part.sq_norms, whole.sq_norms[2:4], rtol=1e-5, atol=0)


def _matrix(grad: Tensor) -> tuple[int, int]:
    from gradstore.sketch import matrix_shape

    return matrix_shape(tuple(grad.shape[1:]))
