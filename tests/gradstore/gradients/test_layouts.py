"""Where the examples lie does not depend on how many there are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradstore.gradients import GradientEngine
from gradstore.testing.rule_kit import check_against_autograd, require_rules
from gradstore.testing.toys import ReadoutTask, batch_of


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


class Sequences(nn.Module):
    """Attention and a linear layer, with the sequence in front or flattened into the batch on request."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order
        self.attention = nn.MultiheadAttention(4, 2, batch_first=order != "sequence first")
        self.positions, self.linear = nn.Parameter(torch.randn(1, 80, 4)), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, length = x.shape[:2]
        x = x + self.positions[:, :length]
        if self.order == "sequence first":
            x = x.transpose(0, 1)
        x = self.attention(x, x, x, need_weights=False)[0]
        if self.order == "flattened":
            out: Tensor = self.linear(x.reshape(n * length, -1)).reshape(n, -1)
            return out
        out = self.linear(x)
        return out.transpose(0, 1) if self.order == "sequence first" else out


@pytest.mark.parametrize("length", [1, 5, 11, 64])
@pytest.mark.parametrize("n_examples", [1, 5, 64])
@pytest.mark.parametrize("order", ["batch first", "sequence first", "flattened"])
def test_layouts_of_a_few_examples_serve_any_number(order: str, n_examples: int, length: int) -> None:
    task = ReadoutTask(lambda: Sequences(order), torch.float64)
    engine = GradientEngine(task, task.build(), "all", d_sketch=16, seed=0)
    require_rules(engine.prepare(batch_of(randn(3, length, 4).double())))
    batch = batch_of(randn(n_examples, length, 4).double())
    found = engine.run(batch).sets["all"]
    for row in {0, n_examples - 1}:
        alone = engine.run(batch[row : row + 1]).sets["all"]
        torch.testing.assert_close(found.sketches[row], alone.sketches[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(found.sq_norms[row], alone.sq_norms[0], rtol=1e-10, atol=0)


@pytest.mark.parametrize("order", ["batch first", "sequence first", "flattened"])
def test_a_sequence_as_long_as_the_batch_equals_autograd(order: str) -> None:
    task = ReadoutTask(lambda: Sequences(order), torch.float64)
    require_rules(check_against_autograd(task, batch_of(randn(6, 6, 4).double()), 1e-10, n_probed=3))


class Tokens(nn.Module):
    """A size that no parameter and no input has: `n_tokens` come out of a convolution."""

    def __init__(self, n_tokens: int) -> None:
        super().__init__()
        self.conv, self.positions = nn.Conv1d(1, 4, 3, stride=2), nn.Parameter(torch.randn(1, 64, 4))
        self.linear, self.n_tokens = nn.Linear(4, 2), n_tokens

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).mT
        out: Tensor = self.linear((x + self.positions[:, : self.n_tokens]).transpose(0, 1)).transpose(0, 1)
        return out


@pytest.mark.parametrize("n_tokens", [11, 13, 22])
def test_an_inner_size_equal_to_the_telling_number_of_examples_does_not_mislead(n_tokens: int) -> None:
    task = ReadoutTask(lambda: Tokens(n_tokens), torch.float64)
    require_rules(check_against_autograd(task, batch_of(randn(4, 1, 2 * n_tokens + 1).double()), 1e-10))


class StartsFromZeros(nn.Module):
    """A residual layer on positions flattened with the examples, either outside or inside."""

    def __init__(self, *, examples_outside: bool) -> None:
        super().__init__()
        self.linear, self.examples_outside = nn.Linear(4, 4), examples_outside
        nn.init.zeros_(self.linear.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.examples_outside else x.transpose(0, 1)
        flat = x.reshape(-1, 4)
        out: Tensor = (flat + self.linear(flat)).reshape(x.shape)
        return out if self.examples_outside else out.transpose(0, 1)


@pytest.mark.parametrize("examples_outside", [True, False])
def test_a_layer_that_starts_from_zeros_keeps_its_layout(examples_outside: bool) -> None:
    task = ReadoutTask(lambda: StartsFromZeros(examples_outside=examples_outside), torch.float64)
    require_rules(check_against_autograd(task, batch_of(randn(4, 3, 4).double()), 1e-10))


class Views(nn.Module):
    """Self-supervision: an encoder sees two views of every example at once, and perhaps the example itself."""

    def __init__(self, *, alone_first: bool) -> None:
        super().__init__()
        self.alone_first = alone_first
        self.encoder = nn.Sequential(
            nn.Conv1d(3, 4, 2), nn.BatchNorm1d(4), nn.PReLU(4), nn.Flatten(), nn.Linear(20, 2), nn.BatchNorm1d(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        alone = self.encoder(x) if self.alone_first else 0
        first, second = self.encoder(torch.cat([x, x.flip(-1)])).chunk(2)
        out: Tensor = first * second.detach() + second + alone
        return out


@pytest.mark.parametrize("alone_first", [False, True])
def test_several_views_of_every_example_in_one_call(alone_first: bool) -> None:
    task = ReadoutTask(lambda: Views(alone_first=alone_first), torch.float64)
    require_rules(check_against_autograd(task, batch_of(randn(5, 3, 6).double()), 1e-10))
