"""The fold: adding signed matrix rows to windows of the sketches. The innermost loop of the whole product.

Compiled by numba where it is installed and the numbers lie in main memory, by Triton on CUDA, else plain torch. All
give the same sums to the bit, because all round every product and every sum once, in the same order (tests hold
that; a GPU may fuse the product and the sum of a rank-one gradient). Measured, one thread, 64 examples and a
256 x 784 layer of rank one: 1.6 ms compiled, 10.8 ms in torch, which has to carry every row through main memory.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradstore.compiled import compiled, has_numba


def fold_dense(
    sums: Float[Tensor, "example width"],
    offsets: Int[Tensor, " row"],
    signs: Float[Tensor, "row column"],
    grad: Float[Tensor, "example row column"],
) -> Float[Tensor, " example"]:
    """sums[b, offsets[r] + c] += signs[r, c] grad[b, r, c], in place; returns the squared norms of `grad` (float64).

    The squares are summed in the same pass, in another order than torch would: equal to the precision of `grad`.
    """
    if _is_compiled(sums):
        squares = np.zeros(len(grad))
        _compiled_dense()(sums.numpy(), offsets.numpy(), signs.numpy(), grad.contiguous().numpy(), squares)
        return torch.from_numpy(squares)
    if _has_triton(sums):
        from gradstore.sketch import fold_triton

        fold_triton.fold_dense(sums, offsets, signs, grad)
    else:
        _add_dense(sums, offsets, signs, grad)
    norms: Tensor = torch.linalg.vector_norm(grad.flatten(1), dim=1)
    return norms.to(torch.float64).square()


def _add_dense(sums: Tensor, offsets: Int[Tensor, " row"], signs: Tensor, grad: Tensor) -> None:
    for row, offset in enumerate(offsets.tolist()):
        sums[:, offset : offset + signs.shape[1]].addcmul_(grad[:, row], signs[row])  # a sign rounds nothing


def fold_outer(
    sums: Float[Tensor, "example width"],
    offsets: Int[Tensor, " row"],
    signs: Float[Tensor, "row column"],
    left: Float[Tensor, "example row"],
    right: Float[Tensor, "example column"],
) -> None:
    """sums[b, offsets[r] + c] += left[b, r] signs[r, c] right[b, c], in place; the product is never formed."""
    if _is_compiled(sums):
        _compiled_outer()(sums.numpy(), offsets.numpy(), signs.numpy(), left.numpy(), right.numpy())
        return
    if _has_triton(sums):
        from gradstore.sketch import fold_triton

        fold_triton.fold_outer(sums, offsets, signs, left, right)
        return
    product = torch.empty_like(right, memory_format=torch.contiguous_format)
    for row, offset in enumerate(offsets.tolist()):
        torch.mul(right, signs[row], out=product)
        product.mul_(left[:, row, None])  # apart from the sum: `addcmul` may skip this rounding, the other path cannot
        sums[:, offset : offset + signs.shape[1]].add_(product)


def _is_compiled(sums: Tensor) -> bool:
    return sums.device.type == "cpu" and has_numba()


def _has_triton(sums: Tensor) -> bool:
    return sums.is_cuda and importlib.util.find_spec("triton") is not None


@functools.cache
def _compiled_dense() -> Callable[..., None]:
    # `reassoc` lets the sum of squares run in vector lanes; the windows' sums have an order of their own, which no flag
    # may change.
    return compiled(_dense, fastmath={"reassoc", "nsz"})


@functools.cache
def _compiled_outer() -> Callable[..., None]:
    return compiled(_outer)


def _dense(sums: Any, offsets: Any, signs: Any, grad: Any, squares: Any) -> None:
    for r in range(grad.shape[1]):  # rows outside: a row of signs is read once for all examples
        sign = signs[r]
        for b in range(grad.shape[0]):
            row = grad[b, r]
            window = sums[b, offsets[r] : offsets[r] + row.shape[0]]
            square = row.dtype.type(0)
            for c in range(row.shape[0]):
                window[c] += row[c] * sign[c]
                square += row[c] * row[c]
            squares[b] += square


def _outer(sums: Any, offsets: Any, signs: Any, left: Any, right: Any) -> None:
    for b in range(left.shape[0]):
        for r in range(left.shape[1]):
            window = sums[b, offsets[r] : offsets[r] + right.shape[1]]
            scale = left[b, r]
            for c in range(right.shape[1]):
                window[c] += (right[b, c] * signs[r, c]) * scale
