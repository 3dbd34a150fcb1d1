"""The fold on CUDA, in Triton as torch ships it: one program an example and a window of the sketch.

Each program gathers what falls into its window, row after row, so that no two programs write to one place: no atomic
additions, hence the same bits in every run, in the order in which the CPU's paths add.
"""

# mypy: disable-error-code="misc,no-untyped-def,untyped-decorator"

from __future__ import annotations

import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK = 1024


def fold_dense(
    sums: Float[Tensor, "example width"],
    offsets: Int[Tensor, " row"],
    signs: Float[Tensor, "row column"],
    grad: Float[Tensor, "example row column"],
) -> None:
    """sums[b, offsets[r] + c] += signs[r, c] grad[b, r, c], in place."""
    _dense[_grid(sums)](sums, offsets, signs, grad.contiguous(), sums.stride(0), sums.shape[1], *signs.shape, _BLOCK)


def fold_outer(
    sums: Float[Tensor, "example width"],
    offsets: Int[Tensor, " row"],
    signs: Float[Tensor, "row column"],
    left: Float[Tensor, "example row"],
    right: Float[Tensor, "example column"],
) -> None:
    """sums[b, offsets[r] + c] += left[b, r] signs[r, c] right[b, c], in place."""
    left, right = left.contiguous(), right.contiguous()
    _outer[_grid(sums)](sums, offsets, signs, left, right, sums.stride(0), sums.shape[1], *signs.shape, _BLOCK)


def _grid(sums: Tensor) -> tuple[int, int]:
    return len(sums), triton.cdiv(sums.shape[1], _BLOCK)


@triton.jit
def _dense(sums, offsets, signs, grad, stride, width, n_rows, n_columns, block: tl.constexpr):
    example = tl.program_id(0).to(tl.int64)
    position = tl.program_id(1) * block + tl.arange(0, block)
    where = sums + example * stride + position
    total = tl.load(where, mask=position < width, other=0.0)
    for row in range(n_rows):
        column = position - tl.load(offsets + row)
        inside = (column >= 0) & (column < n_columns)
        sign = tl.load(signs + row * n_columns + column, mask=inside, other=0.0)
        value = tl.load(grad + (example * n_rows + row) * n_columns + column, mask=inside, other=0.0)
        total += value * sign
    tl.store(where, total, mask=position < width)


@triton.jit
def _outer(sums, offsets, signs, left, right, stride, width, n_rows, n_columns, block: tl.constexpr):
    example = tl.program_id(0).to(tl.int64)
    position = tl.program_id(1) * block + tl.arange(0, block)
    where = sums + example * stride + position
    total = tl.load(where, mask=position < width, other=0.0)
    for row in range(n_rows):
        column = position - tl.load(offsets + row)
        inside = (column >= 0) & (column < n_columns)
        sign = tl.load(signs + row * n_columns + column, mask=inside, other=0.0)
        value = tl.load(right + example * n_columns + column, mask=inside, other=0.0)
        total += (value * sign) * tl.load(left + example * n_rows + row)
    tl.store(where, total, mask=position < width)
