"""The fold: adding signed matrix rows to windows of the sketches. The innermost loop of the whole product.

Compiled by numba where it is installed and the numbers lie in main memory, else plain torch; the two give the same
bits, because both round every product and every sum once, in the same order (a test holds that). Measured, one
thread, 64 examples and a 256 x 784 layer of rank one: 1.6 ms compiled, 10.8 ms in torch, which has to carry every
row through main memory.
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


def fold_dense(
    sums: Float[Tensor, "example width"],
    offsets: Int[np.ndarray, " row"],
    signs: Float[Tensor, "row column"],
    grad: Float[Tensor, "example row column"],
) -> None:
    """sums[b, offsets[r] + c] += signs[r, c] grad[b, r, c], in place."""
    if _is_compiled(sums):
        _compiled(_dense)(sums.numpy(), offsets, signs.numpy(), grad.numpy())
        return
    for row, offset in enumerate(offsets.tolist()):
        sums[:, offset : offset + signs.shape[1]].addcmul_(grad[:, row], signs[row])  # a sign rounds nothing


def fold_outer(
    sums: Float[Tensor, "example width"],
    offsets: Int[np.ndarray, " row"],
    signs: Float[Tensor, "row column"],
    left: Float[Tensor, "example row"],
    right: Float[Tensor, "example column"],
) -> None:
    """sums[b, offsets[r] + c] += left[b, r] signs[r, c] right[b, c], in place; the product is never formed."""
    if _is_compiled(sums):
        _compiled(_outer)(sums.numpy(), offsets, signs.numpy(), left.numpy(), right.numpy())
        return
    product = torch.empty_like(right, memory_format=torch.contiguous_format)
    for row, offset in enumerate(offsets.tolist()):
        torch.mul(right, signs[row], out=product)
        product.mul_(left[:, row, None])  # apart from the sum: `addcmul` may skip this rounding, the other path cannot
        sums[:, offset : offset + signs.shape[1]].add_(product)


def _is_compiled(sums: Tensor) -> bool:
    return sums.device.type == "cpu" and _has_numba()


@functools.cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


@functools.cache
def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    """Compiled once a machine where the folder of the package or of the user can keep it, else once a process."""
    import numba

    try:
        compiled: Callable[..., None] = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # numba found no folder to keep it in
        compiled = numba.njit(nogil=True)(function)
    return compiled


def _dense(sums: Any, offsets: Any, signs: Any, grad: Any) -> None:
    for b in range(grad.shape[0]):
        for r in range(grad.shape[1]):
            window = sums[b, offsets[r] : offsets[r] + grad.shape[2]]
            for c in range(grad.shape[2]):
                window[c] += grad[b, r, c] * signs[r, c]


def _outer(sums: Any, offsets: Any, signs: Any, left: Any, right: Any) -> None:
    for b in range(left.shape[0]):
        for r in range(left.shape[1]):
            window = sums[b, offsets[r] : offsets[r] + right.shape[1]]
            scale = left[b, r]
            for c in range(right.shape[1]):
                window[c] += (right[b, c] * signs[r, c]) * scale
