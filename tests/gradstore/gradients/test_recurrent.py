"""Recurrent layers against plain autograd, one example at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from gradstore.gradients import GradientEngine
from gradstore.gradients.rules import recurrent
from gradstore.testing.rule_kit import (
    RuleContract,
    check_against_autograd,
    check_rule,
    require_rules,
    routes,
)
from gradstore.testing.toys import ReadoutTask, batch_of

KINDS: list[Callable[..., nn.RNNBase]] = [
    nn.LSTM,
    nn.GRU,
    functools.partial(nn.RNN, nonlinearity="tanh"),
    functools.partial(nn.RNN, nonlinearity="relu"),
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=["lstm", "gru", "tanh", "relu"])


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


def states_in(final: Any) -> list[Tensor]:
    """h, or h and c, each [example, …]."""
    return [state.transpose(0, 1).flatten(1) for state in (final if isinstance(final, tuple) else (final,))]


class Everything(nn.Module):
    """All that a recurrent layer gives, from initial states that depend on the example if asked to."""

    def __init__(self, net: nn.RNNBase, with_initial: bool = False) -> None:
        super().__init__()
        self.net, self.with_initial = net, with_initial

    def forward(self, x: Tensor) -> Tensor:
        outputs, final = self.net(x if self.net.batch_first else x.transpose(0, 1), self.initial(x))
        outputs = outputs if self.net.batch_first else outputs.transpose(0, 1)
        return torch.cat([outputs.flatten(1), *states_in(final)], 1)

    def initial(self, x: Tensor) -> Any:
        if not self.with_initial:
            return None
        n_passes = self.net.num_layers * (2 if self.net.bidirectional else 1)
        h = torch.cos(x.flatten(1).sum(1)[:, None] + torch.arange(self.net.hidden_size).to(x))
        h = h.expand(n_passes, -1, -1).contiguous()
        return (h, 0.5 * h) if isinstance(self.net, nn.LSTM) else h


class Packed(Everything):
    """Sequences as long as they have positive first features, one step at least; packed, in the order they come."""

    def forward(self, x: Tensor) -> Tensor:
        lengths = (x[:, :, 0] > 0).sum(1).clamp_min(1)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        outputs, final = self.net(packed, self.initial(x))
        padded, _ = pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
        return torch.cat([padded.flatten(1), *states_in(final)], 1)


class EqualLengths(Everything):
    """Packed without sorting: the batch has no order of its own."""

    def forward(self, x: Tensor) -> Tensor:
        lengths = torch.full((len(x),), x.shape[1])
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=True)
        return torch.cat(states_in(self.net(packed, self.initial(x))[1]), 1)


@every_kind
@pytest.mark.parametrize("with_initial", [False, True], ids=["from zeros", "from given states"])
@pytest.mark.parametrize(
    "options",
    [
        {"batch_first": True},
        {"num_layers": 2, "bias": False},
        {"num_layers": 2, "bidirectional": True, "batch_first": True},
        {"bidirectional": True, "bias": False, "dropout": 0.0},
    ],
    ids=str,
)
def test_padded_sequences(kind: Callable[..., nn.RNNBase], options: dict[str, Any], with_initial: bool) -> None:
    check_rule(lambda: Everything(kind(3, 4, **options), with_initial), randn(5, 6, 3))


@every_kind
@pytest.mark.parametrize("with_initial", [False, True], ids=["from zeros", "from given states"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}], ids=str)
def test_packed_sequences(kind: Callable[..., nn.RNNBase], options: dict[str, Any], with_initial: bool) -> None:
    check_rule(lambda: Packed(kind(3, 4, batch_first=True, **options), with_initial), randn(5, 6, 3))


@every_kind
def test_packed_without_sorting(kind: Callable[..., nn.RNNBase]) -> None:
    check_rule(lambda: EqualLengths(kind(3, 4, num_layers=2), with_initial=True), randn(5, 6, 3))


@settings(max_examples=20, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    model=st.sampled_from([Everything, Packed]),
    n_layers=st.integers(1, 3),
    bidirectional=st.booleans(),
    sizes=st.tuples(st.integers(2, 5), st.integers(1, 7), st.integers(1, 4), st.integers(4, 9)),  # one ReLU may be dead
)
def test_any_sizes(
    kind: Callable[..., nn.RNNBase],
    model: type[Everything],
    n_layers: int,
    bidirectional: bool,
    sizes: tuple[int, int, int, int],
) -> None:
    n_examples, n_steps, n_features, n_hidden = sizes
    task = ReadoutTask(
        lambda: model(kind(n_features, n_hidden, n_layers, bidirectional=bidirectional, batch_first=True), True),
        torch.float64,
    )
    inputs = randn(n_examples, n_steps, n_features).double() + 0.3
    require_rules(check_against_autograd(task, batch_of(inputs), 1e-10))


class TestNetworkCalledTwice(RuleContract):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.LSTM(4, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat(states_in(self.net(self.net(x)[0].tanh())[1]), 1)

    def layer(self) -> nn.Module:
        return self.Twice()

    def inputs(self, n_examples: int) -> Tensor:
        return randn(n_examples, 5, 4)


class Part(nn.Module):
    """One of the things that an LSTM of two layers gives."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self.net, self.part = nn.LSTM(3, 4, num_layers=2, batch_first=True), part

    def forward(self, x: Tensor) -> Tensor:
        outputs, (h, c) = self.net(x)
        parts: dict[str, Tensor] = {"h_n": h[-1], "c_n": c.transpose(0, 1), "last": outputs[:, -1]}
        return parts[self.part]


@pytest.mark.parametrize("part", ["h_n", "c_n", "last"])
def test_only_a_part_of_the_outputs_is_read(part: str) -> None:
    check_rule(lambda: Part(part), randn(5, 6, 3))


class Between(nn.Module):
    """Tracked layers on both sides, so that the gradient passes through."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(2, 3), nn.Linear(4, 2)
        self.net = nn.GRU(3, 4, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.after(self.net(self.before(x))[0])
        return output


class TestBetweenOtherLayers(RuleContract):
    def layer(self) -> nn.Module:
        return Between()

    def inputs(self, n_examples: int) -> Tensor:
        return randn(n_examples, 6, 2)


class Sentences(nn.Module):
    """A layer over the words of several sentences an example, flattened with the examples."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.GRU(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        states: Tensor = self.net(x.flatten(0, 1))[1][0]
        return states.reshape(len(x), -1)


def test_several_sequences_an_example() -> None:
    check_rule(Sentences, randn(5, 3, 6, 3))


@pytest.mark.parametrize("tracked", ["net.weight_hh_l0", "net.bias_ih_l1", "net.weight_ih_l1"])
def test_single_parameters_tracked(tracked: str) -> None:
    task = ReadoutTask(lambda: Everything(nn.LSTM(3, 4, num_layers=2, batch_first=True)), torch.float64)
    coverage = check_against_autograd(task, batch_of(randn(5, 6, 3).double()), 1e-10, tracked=tracked)
    assert routes(coverage) == {tracked: "rule"}


def test_projected_states_take_the_fallback_and_stay_right() -> None:
    task = ReadoutTask(lambda: Everything(nn.LSTM(3, 4, proj_size=2, batch_first=True)), torch.float64)
    coverage = check_against_autograd(task, batch_of(randn(4, 5, 3).double()), 1e-10)
    assert set(routes(coverage).values()) <= {"vmap", "loop"}
    assert all("proj_size" in route.detail or "vmap cannot" in route.detail for route in coverage.routes)


@every_kind
def test_a_long_sequence_in_float32(kind: Callable[..., nn.RNNBase]) -> None:
    task = ReadoutTask(lambda: Everything(kind(1, 16, num_layers=2, batch_first=True)))
    require_rules(check_against_autograd(task, batch_of(randn(4, 140, 1)), 1e-5))


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize("model", [Everything, Packed])
def test_compiled_gates_equal_the_plain_ones(
    kind: Callable[..., nn.RNNBase], model: type[Everything], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within 1e-5: each of 30 steps forward and back adds a few roundings of 6e-8."""
    task = ReadoutTask(lambda: model(kind(3, 20, num_layers=2, bidirectional=True, batch_first=True)))
    batch = batch_of(randn(6, 30, 3) + 1.0)
    engine = GradientEngine(task, task.build(), "all", d_sketch=32, seed=0)
    engine.prepare(batch[:2])
    compiled = engine.run(batch).sets["all"]
    monkeypatch.setattr(recurrent, "has_numba", lambda: False)
    plain = engine.run(batch).sets["all"]
    torch.testing.assert_close(compiled.sq_norms, plain.sq_norms, rtol=2e-5, atol=0)
    scale = float(plain.sq_norms.sqrt().min())
    torch.testing.assert_close(compiled.sketches, plain.sketches, rtol=0, atol=1e-5 * scale)


def test_compiled_sigmoid_and_tangent_are_within_four_ulp() -> None:
    compiled = pytest.importorskip("gradstore.gradients.rules.recurrent_compiled")
    x = torch.cat([torch.linspace(-100.0, 100.0, 4001), torch.logspace(-30, 2, 500), -torch.logspace(-30, 2, 500)])
    for ours, exact in ((compiled._sigmoid, torch.sigmoid), (compiled._tanh, torch.tanh)):
        found = torch.tensor([ours(value) for value in x.numpy()], dtype=torch.float64)
        expected = exact(x.double())
        error = (found - expected).abs() / expected.abs().clamp_min(torch.finfo(torch.float32).tiny)
        assert float(error[expected.abs() > 1e-34].max()) <= 4 * torch.finfo(torch.float32).eps
