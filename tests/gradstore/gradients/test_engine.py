"""Routes, fallbacks and refusals of the engine."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gradstore.errors import LossShapeError, MixedExamplesError, ParametersError, ProbeError, TrainingModeError
from gradstore.gradients import Coverage, GradientEngine
from gradstore.task import Batch, Noise
from gradstore.testing.toys import ReadoutTask, autograd_gradients, batch_of


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def check_against_autograd(task: ReadoutTask, batch: Batch) -> Coverage:
    """The engine's norms equal those of plain autograd; returns the routes it chose."""
    expected = autograd_gradients(task, task.build(), batch)
    engine = GradientEngine(task, task.build(), "all", d_sketch=32, seed=1)
    coverage = engine.prepare(batch[:3])
    sq = sum((grad.flatten(1).double().square().sum(1) for grad in expected.values()), torch.zeros(len(batch)))
    torch.testing.assert_close(engine.run(batch).sets["all"].sq_norms, sq.double(), rtol=1e-5, atol=1e-12)
    return coverage


class Functional(nn.Module):
    """Uses a linear layer's weight behind its back."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.called = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.called(torch.tanh(functional.linear(x, self.used.weight, self.used.bias)))
        return out + self.called.bias


def test_parameters_used_through_functions_are_seen() -> None:
    coverage = check_against_autograd(ReadoutTask(Functional), batch_of(randn(5, 4)))
    assert {route.parameter: route.detail for route in coverage.routes} == {
        "used.weight": "linear",
        "used.bias": "linear",
        "called.weight": "linear",
        "called.bias": "linear + add",
    }


class Einsum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix, self.linear = nn.Parameter(torch.randn(4, 3)), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(torch.einsum("bi,ij->bj", x, self.mix))
        return out


def test_an_operation_without_a_rule_takes_vmap_for_its_parameters_alone() -> None:
    coverage = check_against_autograd(ReadoutTask(Einsum), batch_of(randn(5, 4)))
    assert coverage.by("vmap") == ["mix"]
    assert coverage.routes[0].detail == "read by einsum, which has no rule"


class Hidden(torch.autograd.Function):
    """Nobody sees what a function of the user's own does inside."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return x * weight

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return grad * weight, (grad * x).sum(0)


class HiddenUse(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.linspace(0.1, 1.0, 4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = Hidden.apply(x, self.scale)  # type: ignore[no-untyped-call]
        return out


def test_a_use_that_nobody_sees_is_noticed_by_the_probe() -> None:
    coverage = check_against_autograd(ReadoutTask(HiddenUse), batch_of(randn(5, 4)))
    assert not coverage.by("rule")
    assert "cannot see" in coverage.routes[0].detail or "vmap cannot" in coverage.routes[0].detail


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.middle, self.head = nn.Embedding(7, 4), nn.Linear(4, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(torch.tanh(self.middle(self.embedding(x))) * self.scale)
        return out


def test_tied_weights_count_once_with_their_cross_terms() -> None:
    coverage = check_against_autograd(ReadoutTask(Tied), batch_of(torch.arange(15).reshape(5, 3) % 7))
    assert coverage.routes[1].detail == "embedding + linear"
    assert not coverage.by("vmap")


class DataDependent(nn.Module):
    """`vmap` cannot follow Python control flow on values."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.1, 1.0, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([row * self.weight if float(row.sum()) > 0 else row + self.weight for row in x])


def test_what_vmap_cannot_do_goes_one_example_at_a_time() -> None:
    coverage = check_against_autograd(ReadoutTask(DataDependent), batch_of(randn(5, 4)))
    assert coverage.by("loop") == ["weight"]
    assert "vmap cannot" in coverage.routes[0].detail


class SequenceFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x.transpose(0, 1))
        return out.transpose(0, 1)


@pytest.mark.parametrize("length", [3, 5, 6])
def test_examples_may_lie_on_another_axis(length: int) -> None:
    coverage = check_against_autograd(ReadoutTask(SequenceFirst), batch_of(randn(6, length, 3)))
    assert coverage.by("rule") == ["linear.weight", "linear.bias"]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_an_lstm_with_projections_is_right_through_the_fallback() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(3, 4, batch_first=True, proj_size=2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.lstm(x)[0][:, -1]
            return out

    coverage = check_against_autograd(ReadoutTask(Last), batch_of(randn(4, 6, 3)))
    assert not coverage.by("rule")


def test_coverage_survives_json() -> None:
    coverage = check_against_autograd(ReadoutTask(Functional), batch_of(randn(4, 4)))
    assert Coverage.from_json(coverage.to_json()) == coverage


def linear_task() -> ReadoutTask:
    return ReadoutTask(lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 2)))


def prepare(task: ReadoutTask) -> None:
    GradientEngine(task, task.build(), "all", d_sketch=8, seed=0).prepare(batch_of(randn(4, 4)))


def test_autocast_is_held_to_its_own_precision() -> None:
    class Autocast(ReadoutTask):
        def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return super().loss(model, batch, noise).float()

    task = Autocast(lambda: nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)))
    coverage = GradientEngine(task, task.build(), "all", d_sketch=8, seed=0).prepare(batch_of(randn(4, 4)))
    assert {route.how for route in coverage.routes} == {"rule"}


def test_a_gradient_that_is_not_finite_is_refused() -> None:
    class Overflowing(ReadoutTask):
        def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
            return super().loss(model, batch, noise) * 1e38 * 1e-3

    with pytest.raises(ProbeError, match="not finite"):
        prepare(Overflowing(lambda: nn.Sequential(nn.Linear(4, 500), nn.Linear(500, 300))))


def test_a_loss_that_returns_a_mean_is_refused() -> None:
    class Mean(ReadoutTask):
        def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
            return super().loss(model, batch, noise).mean()

    with pytest.raises(LossShapeError, match=r"loss returned \(\) for 4 examples; expected \(4,\)"):
        prepare(Mean(lambda: nn.Linear(4, 2)))


def test_a_loss_that_mixes_examples_is_refused() -> None:
    class Mixing(ReadoutTask):
        def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
            losses = super().loss(model, batch, noise)
            return losses + 0.1 * losses.mean()

    with pytest.raises(MixedExamplesError, match="alone and"):
        prepare(Mixing(lambda: nn.Linear(4, 2)))


def test_a_loss_with_its_own_randomness_is_refused() -> None:
    class Rolling(ReadoutTask):
        def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
            return super().loss(model, batch, noise) * torch.rand(len(batch))

    with pytest.raises(MixedExamplesError, match="randomness"):
        prepare(Rolling(lambda: nn.Linear(4, 2)))


def test_batch_norm_in_training_mode_is_refused() -> None:
    class Training(ReadoutTask):
        def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
            model.train()
            return super().loss(model, batch, noise)

    with pytest.raises(TrainingModeError, match="BatchNorm1d '1'"):
        prepare(Training(linear_task().build))


def test_batch_norm_without_running_statistics_is_refused() -> None:
    with pytest.raises(TrainingModeError, match="track_running_stats"):
        prepare(ReadoutTask(lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, track_running_stats=False))))


def test_a_model_left_in_training_mode_is_put_in_eval_mode() -> None:
    task = linear_task()
    model = task.build().train()
    GradientEngine(task, model, "all", d_sketch=8, seed=0).prepare(batch_of(randn(4, 4)))
    assert not model.training


def test_a_pattern_that_names_nothing_lists_what_there_is() -> None:
    task = linear_task()
    with pytest.raises(ParametersError, match=r"'nothing\.\*' names none .* 0\.weight"):
        GradientEngine(task, task.build(), "nothing.*", d_sketch=8, seed=0)


def test_draws_average_the_loss() -> None:
    class Noisy(ReadoutTask):
        def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
            output: Tensor = model(batch.inputs + noise.normal(4))
            return output.square().sum(1)

    task, batch = Noisy(lambda: nn.Linear(4, 2)), batch_of(randn(3, 4))
    model = task.build()
    model.requires_grad_(True)
    engine = GradientEngine(task, task.build(), "all", d_sketch=512, seed=9, n_draws=3)
    engine.prepare(batch)
    losses = [task.loss(model, batch, Noise(batch.keys, 9, draw)) for draw in range(3)]
    mean = torch.stack(losses).mean(0)
    torch.testing.assert_close(engine.run(batch).losses, mean.detach())
    grads = torch.autograd.grad(mean[1], list(model.parameters()))
    expected = torch.stack([g.double().square().sum() for g in grads]).sum()
    torch.testing.assert_close(engine.run(batch).sets["all"].sq_norms[1], expected, rtol=1e-5, atol=0)


class AtAKink(nn.Module):
    """Rounds to the one side of 0 alone, to the other in a batch: what matrix products may do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        values = self.linear(x)
        rounding = 1e-9 if len(x) == 1 else -1e-9
        out: Tensor = torch.relu(torch.cat([values[:, :2], values[:, 2:] - values[:, 2:].detach() + rounding], dim=1))
        return out


def test_a_unit_that_is_on_alone_and_off_in_a_batch_is_no_disagreement() -> None:
    engine = GradientEngine(ReadoutTask(AtAKink), AtAKink(), "all", d_sketch=32, seed=1)
    assert engine.prepare(batch_of(randn(3, 4))).by("rule") == ["linear.weight", "linear.bias"]
