"""Linear maps: dW = sum over positions of delta a^T; with one position it has rank one and is never formed."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gradstore.gradients.forms import Dense, Formed, Product
from gradstore.gradients.rules.base import Call, Found, NoRuleError


def linear(call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Found:
    """`y = x W^T + b`, any number of axes beside the features."""
    if weight.dim() != 2 or call.wants(input):
        raise NoRuleError("the weight is a vector, or the input is a parameter")
    delta = call.delta
    if call.wants(weight):
        yield weight, Product(delta.mT, call.positions(input))
    if bias is not None and call.wants(bias):
        yield bias, Dense(delta.sum(1))


def bilinear(call: Call, input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Found:
    """`y_k = x1 W_k x2 + b_k`: linear in the products of both inputs' features."""
    delta = call.delta
    if call.wants(weight):
        left, right = call.positions(input1), call.positions(input2)
        yield weight, Product(delta.mT, (left[..., :, None] * right[..., None, :]).flatten(2))
    if bias is not None and call.wants(bias):
        yield bias, Dense(delta.sum(1))


def addmm(call: Call, input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Found:
    """`beta b + alpha x W`, the transposed layer of GPT-2 (Hugging Face's `Conv1D`)."""
    delta = call.delta
    if call.wants(mat1):
        raise NoRuleError("a parameter stands on the left of a matrix product")
    if call.wants(mat2):
        yield mat2, Product(alpha * call.positions(mat1).mT, delta)
    if call.wants(input):
        if input.dim() != 1:
            raise NoRuleError("addmm adds a matrix")
        yield input, Dense(beta * delta.sum(1))


def matmul(call: Call, input: Tensor, other: Tensor) -> Found:
    """`x W`, `x w` with a vector, or `W x` with the features on the last axis but one; also a matrix a head."""
    if input.dim() < 2 or (call.wants(input) and call.wants(other)):
        raise NoRuleError("a vector stands on the left of a matrix product, or both sides are parameters")
    if call.wants(other):
        yield other, _right(call, input, other)
    else:
        yield input, _left(call, input, other)


def _right(call: Call, x: Tensor, weight: Tensor) -> Dense | Product | Formed:
    """The gradient is x^T delta."""
    if weight.dim() == 1:
        values = call.examples_first(x) * call.grad[..., None]
        return Dense(values.reshape(call.n_examples, -1, len(weight)).sum(1))
    if weight.dim() == 2:
        return Product(call.positions(x).mT, call.delta)
    return _per_head(call, call.examples_first(x).mT, call.grad, weight)


def _left(call: Call, weight: Tensor, x: Tensor) -> Product | Formed:
    """The gradient is delta x^T; the output's last axis counts as positions."""
    if x.dim() < 2:
        raise NoRuleError("a parameter is multiplied by one vector")
    if call.operation.layout.axis >= x.dim() - 2:
        raise NoRuleError("the examples lie on an axis of the matrix product")
    delta, x = call.grad, call.examples_first(x)
    if weight.dim() > 2:
        return _per_head(call, delta, x.mT, weight)
    columns = [values.movedim(-2, 1).flatten(2) for values in (delta, x)]
    return Product(columns[0], columns[1].mT)


def _per_head(call: Call, left: Tensor, right: Tensor, weight: Tensor) -> Formed:
    """Sums of left @ right for each of the weight's matrices, over axes that it does not have."""
    missing = call.grad.dim() - 1 - weight.dim()
    if missing < 0 or not left.dim() == right.dim() == call.grad.dim() or call.operation.layout.axis != 0:
        raise NoRuleError("the examples lie on an axis that the parameter has")
    sizes = [1] * missing + list(weight.shape)
    n_bytes = call.grad.shape[1:-2].numel() * left.shape[-2] * right.shape[-1] * left.element_size()
    return Formed(functools.partial(_summed, left, right, sizes, len(weight)), n_bytes)


def _summed(
    left: Tensor, right: Tensor, sizes: Sequence[int], n_rows: int, examples: slice, swapped: bool
) -> Float[Tensor, "example row column"]:
    product = torch.matmul(left[examples], right[examples])
    grad = product.sum_to_size(len(product), *sizes).reshape(len(product), n_rows, -1)
    return grad.mT if swapped else grad
