"""LSTM, GRU and plain recurrent layers: forward again to know the gates, then back through time by hand.

What comes out are the gradients at the gates of every layer, direction and step; with them each weight is a linear
layer over the steps. Layers are walked from the last one to the first that is tracked, each handing the gradient at
its inputs down. Sequences of unequal length are spread to [step, row], zero where a row has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gradstore.compiled import has_numba
from gradstore.gradients.forms import Dense, Product
from gradstore.gradients.rules.base import Call, Found, NoRuleError
from gradstore.gradients.rules.recurrent_steps import GRU, LSTM, Direction, ReluRNN, TanhRNN, Weights


def lstm(call: Call, *arguments: Any) -> Found:
    """Long short-term memory, without `proj_size`."""
    return _found(call, LSTM, *arguments)


def gru(call: Call, *arguments: Any) -> Found:
    """Gated recurrent units."""
    return _found(call, GRU, *arguments)


def rnn_tanh(call: Call, *arguments: Any) -> Found:
    """Elman's network."""
    return _found(call, TanhRNN, *arguments)


def rnn_relu(call: Call, *arguments: Any) -> Found:
    """Elman's network with rectified units."""
    return _found(call, ReluRNN, *arguments)


@dataclass(frozen=True)
class _Sequences:
    """How inputs and outputs hold the steps of the rows."""

    batch_first: bool
    in_progress: Bool[Tensor, "step row"] | None
    """For a packed sequence; its values are those of the rows in progress, step by step."""

    def spread(self, values: Tensor) -> Float[Tensor, "step row width"]:
        if self.in_progress is None:
            return values.transpose(0, 1) if self.batch_first else values
        spread = values.new_zeros(*self.in_progress.shape, values.shape[-1])
        spread[self.in_progress] = values
        return spread

    def batch_sizes(self, n_steps: int, n_rows: int) -> list[int]:
        """How many rows are in progress at each step."""
        return [n_rows] * n_steps if self.in_progress is None else self.in_progress.sum(1).tolist()


@dataclass(frozen=True)
class _Network:
    """The operation's arguments. A pass is one direction of one layer."""

    inputs: Float[Tensor, "step row input"]
    initial: Sequence[Float[Tensor, "pass row hidden"]]
    """h, and c where there is one."""
    parameters: Sequence[Sequence[Tensor]]
    """By pass: the matrices for inputs and states, and their biases where there are any."""
    n_directions: int
    sequences: _Sequences

    @property
    def n_layers(self) -> int:
        return len(self.parameters) // self.n_directions

    def passes(self, layer: int) -> range:
        """Those of a layer."""
        return range(layer * self.n_directions, (layer + 1) * self.n_directions)


def _found(call: Call, kind: type[Direction], *arguments: Any) -> Found:
    network = _network(call, *arguments)
    layers = _forward(network, _fastest(kind, network.inputs))
    wanted = [layer for layer in range(network.n_layers) if _wants(call, network, layer)]
    grad = None if call.grads[0] is None else network.sequences.spread(call.grads[0].to(call.dtype))
    for layer in range(network.n_layers - 1, wanted[0] - 1, -1):
        directions = layers.pop()
        _pull_back(call, network, layer, directions, grad)
        for number, direction in zip(network.passes(layer), directions, strict=True):
            yield from _forms(call, network.parameters[number], direction)
        if layer > wanted[0]:
            below = [direction.input_delta @ direction.weights.ih for direction in directions]
            grad = below[0] if len(below) == 1 else below[0].add_(below[1])


def _network(call: Call, inputs: Tensor, *others: Any) -> _Network:
    """Read either signature: that for a packed sequence has its batch sizes second and no `batch_first`."""
    packed = not isinstance(others[2], bool)
    batch_sizes, others = (others[0], (*others[1:], False)) if packed else (None, others)
    hx, parameters, biased, n_layers, dropout, train, bidirectional, batch_first = others
    initial = hx if isinstance(hx, tuple | list) else (hx,)
    each, n_directions = 4 if biased else 2, 2 if bidirectional else 1
    _require_covered(call, [inputs, *initial], dropout > 0 and train, len(parameters) != n_layers * n_directions * each)
    sequences = _Sequences(batch_first, _in_progress(batch_sizes, inputs.device))
    return _Network(
        inputs=sequences.spread(inputs.to(call.dtype)),
        initial=[state.to(call.dtype) for state in initial],
        parameters=[parameters[start : start + each] for start in range(0, len(parameters), each)],
        n_directions=n_directions,
        sequences=sequences,
    )


def _require_covered(call: Call, read: Sequence[Tensor], dropping: bool, projecting: bool) -> None:
    reasons = {
        "dropout between its layers is live": dropping,
        "it projects its states (proj_size)": projecting,
        "its input or its initial state is a parameter": any(call.wants(tensor) for tensor in read),
        "its states lie without an axis of examples": call.operation.layout.axis != 1,
    }
    for reason, holds in reasons.items():
        if holds:
            raise NoRuleError(reason)


def _in_progress(batch_sizes: Tensor | None, device: torch.device) -> Tensor | None:
    if batch_sizes is None:
        return None
    return (torch.arange(int(batch_sizes[0])) < batch_sizes[:, None]).to(device)


def _fastest(kind: type[Direction], inputs: Tensor) -> type[Direction]:
    """Compiled where it can be; the figures differ by rounding."""
    if inputs.dtype != torch.float32 or inputs.device.type != "cpu" or not has_numba():
        return kind
    from gradstore.gradients.rules.recurrent_compiled import COMPILED

    return COMPILED.get(kind, kind)


def _forward(network: _Network, kind: type[Direction]) -> list[list[Direction]]:
    """Every layer's directions, having run; each layer reads the outputs of the one before."""
    layers: list[list[Direction]] = []
    inputs = network.inputs
    batch_sizes = network.sequences.batch_sizes(*inputs.shape[:2])
    for layer in range(network.n_layers):
        layers.append([])
        for number in network.passes(layer):
            initial = [state[number] for state in network.initial]
            weights = _weights(network.parameters[number], inputs.dtype)
            backwards = number != network.passes(layer)[0]
            layers[-1].append(kind(inputs, weights, initial, batch_sizes, backwards=backwards))
            layers[-1][-1].run()
        outputs = [direction.outputs for direction in layers[-1]]
        inputs = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
    return layers


def _weights(parameters: Sequence[Tensor], dtype: torch.dtype) -> Weights:
    ih, hh, *biases = (parameter.to(dtype) for parameter in parameters)
    none = ih.new_zeros(len(ih))
    return Weights(ih, hh, *(biases or (none, none)))


def _wants(call: Call, network: _Network, layer: int) -> bool:
    return any(call.wants(parameter) for number in network.passes(layer) for parameter in network.parameters[number])


def _pull_back(
    call: Call,
    network: _Network,
    layer: int,
    directions: Sequence[Direction],
    grad: Float[Tensor, "step row output"] | None,
) -> None:
    """From the gradient at a layer's outputs, and those at its last states, to its gates."""
    parts = [None] * len(directions) if grad is None else grad.chunk(len(directions), dim=2)
    for number, direction, part in zip(network.passes(layer), directions, parts, strict=True):
        final = [
            torch.zeros_like(state[number]) if grads is None else grads[number].to(call.dtype)
            for state, grads in zip(network.initial, call.grads[1:], strict=True)
        ]
        direction.pull_back(part, final)


def _forms(call: Call, parameters: Sequence[Tensor], direction: Direction) -> Found:
    """Each matrix multiplies what it reads at every step, and each bias 1."""
    sides = ((direction.input_delta, direction.inputs), (direction.state_delta, direction.earlier))
    for number, (delta, read) in enumerate(sides):
        matrix, *bias = parameters[number::2]
        left = _by_example(call, delta)
        if call.wants(matrix):
            yield matrix, Product(left.mT, _by_example(call, read))
        if bias and call.wants(bias[0]):
            yield bias[0], Dense(left.sum(1))


def _by_example(call: Call, values: Float[Tensor, "step row width"]) -> Float[Tensor, "example position width"]:
    """Rows of a packed sequence may have been sorted by their length."""
    order = call.operation.order
    return call.positions(values if order is None else values[:, order.argsort()])
