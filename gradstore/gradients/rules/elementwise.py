"""Bare parameters: positional embeddings, class tokens, mask tokens, layer scales, offsets and temperatures.

An example's gradient is its part of the output's gradient, times the operation's derivative, summed over the axes
along which the parameter was broadcast.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from gradstore.gradients.forms import Dense
from gradstore.gradients.rules.base import Call, Found, NoRuleError


def add(call: Call, input: Tensor, other: Tensor, *, alpha: float = 1) -> Found:
    """`x + alpha p`, either of them the parameter."""
    for tensor, factor in ((input, 1), (other, alpha)):
        if call.wants(tensor):
            yield tensor, Dense(_gathered(call, factor * call.grad, tensor))


def subtract(call: Call, input: Tensor, other: Tensor, *, alpha: float = 1) -> Found:
    """`x - alpha p`, either of them the parameter."""
    return add(call, input, other, alpha=-alpha)


def reversed_subtract(call: Call, input: Tensor, other: Tensor) -> Found:
    """`other - input`."""
    return add(call, other, input, alpha=-1)


def multiply(call: Call, input: Tensor, other: Tensor) -> Found:
    """`x p`, either of them the parameter."""
    _require_one(call, input, other)
    for tensor, factor in ((input, other), (other, input)):
        if call.wants(tensor):
            yield tensor, Dense(_gathered(call, call.grad * _spread(call, factor), tensor))


def divide(call: Call, input: Tensor, other: Tensor, *, rounding_mode: str | None = None) -> Found:
    """`x / p` (a temperature) or `p / x`."""
    _require_one(call, input, other)
    if rounding_mode is not None:
        raise NoRuleError("it divides and rounds")
    over = call.grad / _spread(call, other)
    if call.wants(input):
        yield input, Dense(_gathered(call, over, input))
    else:
        yield other, Dense(_gathered(call, -over * _spread(call, input) / _spread(call, other), other))


def power(call: Call, input: Tensor, exponent: Tensor) -> Found:
    """`x ** p` with x > 0, as generalised-mean pooling has it."""
    if call.wants(input):
        raise NoRuleError("a parameter is raised to a power that depends on the example")
    base = _spread(call, input)
    slope = base.pow(_spread(call, exponent)) * base.log()
    yield exponent, Dense(_gathered(call, call.grad * slope, exponent))


def where(call: Call, *arguments: Tensor, **named: Tensor) -> Found:
    """`where(masked, p, x)` or `x.where(kept, p)`, as mask tokens are; either of them the parameter."""
    if named or len(arguments) != 3:
        raise NoRuleError("where is called with names")
    first, second, other = arguments
    condition, input = (first, second) if first.dtype == torch.bool else (second, first)
    chosen = _spread(call, condition)
    for tensor, keep in ((input, chosen), (other, ~chosen)):
        if call.wants(tensor):
            yield tensor, Dense(_gathered(call, call.grad * keep, tensor))


def expand(call: Call, input: Tensor, *sizes: object, **implicit: object) -> Found:
    """`p.expand(batch, …)`, as class tokens are; so `expand_as` and `broadcast_to`."""
    yield input, Dense(_gathered(call, call.grad, input))


def repeat(call: Call, input: Tensor, *repeats: object, **implicit: object) -> Found:
    """`p.repeat(batch, …)`; along an axis the copies lie one after another."""
    split = [
        size
        for total, own in zip(call.grad.shape[1:], _own_sizes(call, input), strict=True)
        for size in (total // own, own)
    ]
    copies = call.grad.reshape(call.n_examples, *split)
    yield input, Dense(copies.sum(tuple(range(1, copies.dim(), 2))).reshape(call.n_examples, *input.shape))


def _require_one(call: Call, input: object, other: object) -> None:
    """Each side's derivative is the other, which must not be a parameter too."""
    if all(isinstance(side, Tensor) and call.wants(side) for side in (input, other)):
        raise NoRuleError("both sides are parameters")


def _spread(call: Call, factor: Tensor | float) -> Tensor:
    """A factor as large as the output, examples first."""
    if not isinstance(factor, Tensor):
        return call.grad.new_tensor(factor)
    return call.examples_first(factor.detach().broadcast_to(_shape(call)))


def _shape(call: Call) -> tuple[int, ...]:
    first = call.grads[0]
    if first is None:
        raise NoRuleError("no gradient reaches its output")
    return tuple(first.shape)


def _gathered(call: Call, grad: Float[Tensor, "example ..."], parameter: Tensor) -> Float[Tensor, "example ..."]:
    """Sum what was broadcast. `grad` has the examples in front, the parameter lies as in the output."""
    reduced = grad.sum_to_size(len(grad), *_own_sizes(call, parameter))
    return reduced.reshape(len(grad), *parameter.shape)


def _own_sizes(call: Call, parameter: Tensor) -> list[int]:
    """The parameter's sizes along the axes of `call.grad` after the examples'; 1 where it was broadcast."""
    shape, axis = _shape(call), call.operation.layout.axis
    own = [1] * (len(shape) - parameter.dim()) + list(parameter.shape)
    if own[axis] != 1:
        raise NoRuleError("the parameter has an axis where the examples are")
    if shape[axis] == call.n_examples:  # else it also holds positions, which stay where it was
        del own[axis]
    return own
