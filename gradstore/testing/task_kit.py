"""What every Task must do. Subclass it, say how to make one and a batch for it, and inherit the tests:

class TestMyTask(TaskContract):
    def task(self) -> Task: ...
    def batch(self) -> Batch: ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from gradstore.gradients.fallback import vmap_gradients
from gradstore.task import Batch, Noise, Task, tracked_parameters
from gradstore.testing.toys import autograd_gradients

_SEED = 3
# float32 has 24 bits; a loss sums some hundred terms, in an order that depends on the batch's size.
_RTOL = 1e-4


class TaskContract(ABC):
    """Tests that hold for any task whose loss can be differentiated by `vmap`."""

    @abstractmethod
    def task(self) -> Task:
        """The task under test; each call makes an equal one."""

    @abstractmethod
    def batch(self) -> Batch:
        """At least three examples that differ."""

    def test_gives_one_finite_loss_an_example(self) -> None:
        losses = self._losses(self._model(), self.batch())
        assert losses.shape == (len(self.batch()),)
        assert bool(torch.isfinite(losses).all())

    def test_an_example_has_the_same_loss_alone_and_in_a_batch(self) -> None:
        model, batch = self._model(), self.batch()
        alone = torch.cat([self._losses(model, batch[row : row + 1]) for row in range(len(batch))])
        torch.testing.assert_close(self._losses(model, batch), alone, rtol=_RTOL, atol=_RTOL)

    def test_the_same_noise_gives_the_same_bits(self) -> None:
        model, batch = self._model(), self.batch()
        torch.testing.assert_close(self._losses(model, batch), self._losses(model, batch), rtol=0, atol=0)

    def test_the_global_generator_has_no_say(self) -> None:
        model, batch = self._model(), self.batch()
        before = torch.random.get_rng_state()
        self._losses(model, batch)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_gives_one_finite_latent_an_example(self) -> None:
        latents = self.task().latent(self._model(), self.batch())
        assert latents.shape[0] == len(self.batch())
        assert latents.dim() == 2
        assert bool(torch.isfinite(latents).all())

    def test_encoder_names_parameters_that_the_latent_depends_on(self) -> None:
        task, model = self.task(), self._model()
        named = tracked_parameters(task, model, "encoder")
        latent = task.latent(model, self.batch())
        found = torch.autograd.grad(latent.square().sum(), list(named.values()), allow_unused=True)
        assert any(gradient is not None for gradient in found)

    def test_gradients_by_vmap_equal_those_of_one_example_at_a_time(self) -> None:
        task, model, batch = self.task(), self._model(), self.batch()
        expected = autograd_gradients(task, model, batch, _SEED)
        pieces = [found for _, [found] in vmap_gradients(task, model, list(expected), batch, _SEED, n_draws=1)]
        for name, gradient in expected.items():
            scale = float(gradient.abs().max())
            found = torch.cat([piece[name] for piece in pieces])
            torch.testing.assert_close(found, gradient, rtol=_RTOL, atol=_RTOL * scale)

    def test_saved_weights_and_buffers_say_everything_about_a_model(self) -> None:
        model, other = self._model(), self._model(seed=1)
        other.load_state_dict(model.state_dict())
        torch.testing.assert_close(self._losses(other, self.batch()), self._losses(model, self.batch()), rtol=0, atol=0)

    def _model(self, seed: int = 0) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.task().build().eval()

    def _losses(self, model: nn.Module, batch: Batch) -> Tensor:
        return self.task().loss(model, batch, Noise(batch.keys, _SEED)).detach()
