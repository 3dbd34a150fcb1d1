"""What users bring: errors of their own, ways through the model that only some examples take, unread parameters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gradstore.gradients import Coverage, GradientEngine
from gradstore.task import Batch, Noise
from gradstore.testing.rule_kit import check_against_autograd, routes
from gradstore.testing.toys import ReadoutTask, autograd_gradients, batch_of


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7)).double()


def signed(*signs: int) -> Tensor:
    """Examples [x, y, z] of which the first coordinate has the given sign."""
    values = randn(len(signs), 3)
    values[:, 0] = torch.tensor(signs) * values[:, 0].abs()
    return values


def run_after_preparing_on(
    factory: Callable[[], nn.Module], probed: Tensor, inputs: Tensor
) -> tuple[Coverage, dict[str, Tensor], dict[str, Tensor]]:
    """Coverage planned on `probed`; squared norms of `inputs` found and expected, by parameter."""
    task, batch = ReadoutTask(factory, torch.float64), batch_of(inputs)
    names = [name for name, _ in task.build().named_parameters()]
    engine = GradientEngine(task, task.build(), {name: name for name in names}, d_sketch=8, seed=0)
    coverage = engine.prepare(batch_of(probed))
    found = {name: gradients.sq_norms for name, gradients in engine.run(batch).sets.items()}
    grads = autograd_gradients(task, task.build(), batch)
    return coverage, found, {name: grads[name].reshape(len(batch), -1).square().sum(1) for name in names}


class Branch(nn.Module):
    """Reads a parameter only where an example asks for it; `how` it does."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.always, self.rarely = how, nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = torch.tanh(self.always(x))
        chosen = x[:, 0] > 0
        if self.how == "a row at a time":
            return torch.stack([self.rarely(row) if on else row for row, on in zip(out, chosen, strict=True)])
        if self.how == "the whole batch, by a rule" and bool(chosen.any()):
            return torch.where(chosen[:, None], self.rarely(out), out)
        if self.how == "the whole batch, without a rule" and bool(chosen.any()):
            return torch.where(chosen[:, None], torch.einsum("bi,oi->bo", out, self.rarely.weight), out)
        if self.how == "rows written in place":
            result = out.clone()
            result[chosen] = self.rarely(out[chosen])
            return result
        if self.how == "rows added by index":
            index = chosen.nonzero()[:, 0]
            return out.index_add(0, index, self.rarely(out.index_select(0, index)))
        return out


WAYS = [
    "a row at a time",
    "the whole batch, by a rule",
    "the whole batch, without a rule",
    "rows written in place",
    "rows added by index",
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("probed", [(-1, -1, -1), (1, 1, 1), (-1, 1, -1)])
def test_a_parameter_that_only_some_examples_read_is_right(way: str, probed: tuple[int, ...]) -> None:
    inputs = signed(1, -1, 1, 1, -1)
    coverage, found, expected = run_after_preparing_on(lambda: Branch(way), signed(*probed), inputs)
    assert bool((expected["rarely.weight"] > 0).any())
    for name, sq_norms in expected.items():
        torch.testing.assert_close(found[name], sq_norms, rtol=1e-9, atol=1e-12, msg=f"{name}: {coverage.routes}")


class MaskedHead(nn.Module):
    """A head on chosen positions alone, as masked language models have it; then back to the examples."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(1, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        chosen = x > 0
        hidden = torch.tanh(self.body(x[..., None]))
        return hidden.new_zeros(*x.shape, 2).index_put((chosen,), self.head(hidden[chosen]))


def test_chosen_positions_as_many_as_examples_are_not_taken_for_them() -> None:
    one_each = torch.tensor([[1.0, -1, -2, -3], [-1, 2, -3, -1], [-2, -1, -1, 3]]).double()
    uneven = torch.tensor([[1.0, 2, -2, -3], [-1, -2, -3, -1], [-2, -1, -1, 3]]).double()
    coverage, found, expected = run_after_preparing_on(MaskedHead, one_each, uneven)
    assert {name for name, how in {r.parameter: r.how for r in coverage.routes}.items() if how == "rule"} == {
        "body.weight",
        "body.bias",
    }
    for name, sq_norms in expected.items():
        torch.testing.assert_close(found[name], sq_norms, rtol=1e-9, atol=1e-12)


class SortedByValue(nn.Module):
    """Batches sorted before a layer and put back in order after it, as for packed sequences."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        order = x[:, 0].argsort()
        out: Tensor = self.linear(x[order])[order.argsort()]
        return out


def test_a_batch_sorted_inside_the_model_is_right_although_the_probe_was_in_order() -> None:
    inputs = randn(5, 3)
    _, found, expected = run_after_preparing_on(SortedByValue, inputs[inputs[:, 0].argsort()][:3], inputs)
    for name, sq_norms in expected.items():
        torch.testing.assert_close(found[name], sq_norms, rtol=1e-9, atol=1e-12)


class UsersError(Exception):
    """Not one of ours."""


class Failing(ReadoutTask):
    """Its loss raises when called for the `last` time, or for so many examples."""

    def __init__(self, fails: Callable[[int, int], bool]) -> None:
        super().__init__(lambda: nn.Linear(3, 2), torch.float64)
        self.n_calls, self.fails = 0, fails

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        self.n_calls += 1
        if self.fails(self.n_calls, len(batch)):
            raise UsersError("no such word: 'gradeint'")
        return super().loss(model, batch, noise)


@pytest.mark.parametrize("fails", [lambda call, n: call == 1, lambda call, n: n > 3, lambda call, n: call == 8])
def test_an_error_of_the_users_loss_reaches_the_user_unchanged(fails: Callable[[int, int], bool]) -> None:
    task = Failing(fails)
    engine = GradientEngine(task, task.build(), "all", d_sketch=8, seed=0)
    with pytest.raises(UsersError, match=r"^no such word: 'gradeint'$"):
        engine.prepare(batch_of(randn(3, 3)))
    assert torch.backends.mha.get_fastpath_enabled()


def test_an_error_under_the_recorder_leaves_nothing_behind() -> None:
    task = Failing(lambda call, n: n == 4)
    engine = GradientEngine(task, task.build(), "all", d_sketch=8, seed=0)
    engine.prepare(batch_of(randn(3, 3)))
    with pytest.raises(UsersError):
        engine.run(batch_of(randn(4, 3)))
    assert len(engine.run(batch_of(randn(5, 3))).losses) == 5


class FrozenEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm, self.head = nn.Embedding(7, 4), nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.embedding(x)))
        return out


def test_a_frozen_embedding_under_a_tracked_head() -> None:
    task = ReadoutTask(FrozenEmbedding, torch.float64)
    batch = batch_of(torch.arange(15).reshape(5, 3) % 7)
    assert routes(check_against_autograd(task, batch, 1e-10, tracked="head.*")) == {
        "head.weight": "rule",
        "head.bias": "rule",
    }


class Unread(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused, self.detached = nn.Linear(3, 2), nn.Parameter(torch.ones(4)), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.used(x) + self.detached(x).detach()
        return out


def test_parameters_without_a_gradient_have_norm_zero_and_say_so() -> None:
    coverage, found, _ = run_after_preparing_on(Unread, randn(3, 3), randn(5, 3))
    assert {r.parameter: r.detail for r in coverage.routes}["unused"] == "read by nothing"
    for name in ("unused", "detached.weight", "detached.bias"):
        assert not found[name].any(), name
    assert bool((found["used.weight"] > 0).all())
