"""Convolutions: unfold the input into patches, then the gradient is the linear layer's, position by position.

A transposed convolution is the adjoint of a convolution: with input and output gradient exchanged, its weight's
gradient is that convolution's.

An example may have several images (frames of a film flattened into the batch): their gradients add up.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from gradstore.gradients.forms import Dense, Formed
from gradstore.gradients.rules.base import Call, Found, NoRuleError


@dataclass(frozen=True)
class _Geometry:
    """A window and its positions: one number a spatial axis."""

    positions: Sequence[int]
    kernel: Sequence[int]
    stride: Sequence[int]
    dilation: Sequence[int]
    groups: int


def convolution(
    call: Call,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | str | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Found:
    """1, 2 or 3 spatial axes; other padding modes have padded the input before."""
    axes = weight.dim() - 2
    delta = _images(call, call.grad, axes)
    geometry = _Geometry(delta.shape[3:], weight.shape[2:], _each(stride, axes), _each(dilation, axes), groups)
    if bias is not None and call.wants(bias):
        yield bias, Dense(delta.flatten(3).sum((1, 3)))
    if call.wants(weight):
        x = _images(call, call.examples_first(input), axes)
        yield weight, _form(_padded(x, padding, geometry), delta, weight, geometry)


def transposed_convolution(
    call: Call,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Found:
    """Weight [C, O / groups, *kernel]: the convolution from the output back to the input."""
    axes = weight.dim() - 2
    delta = _images(call, call.grad, axes)
    geometry = _Geometry(input.shape[2:], weight.shape[2:], _each(stride, axes), _each(dilation, axes), groups)
    if bias is not None and call.wants(bias):
        yield bias, Dense(delta.flatten(3).sum((1, 3)))
    if call.wants(weight):
        x = _images(call, call.examples_first(input), axes)
        yield weight, _form(_padded(delta, padding, geometry), x, weight, geometry)


def _images(call: Call, values: Float[Tensor, "example ..."], axes: int) -> Float[Tensor, "example image channel ..."]:
    """Values that have the examples in front as [B, images of an example, C, *space]."""
    if call.operation.layout.axis != 0:
        raise NoRuleError("the examples are not in front")
    return values if values.dim() == axes + 3 else values.unsqueeze(1)


def _form(wide: Tensor, narrow: Tensor, weight: Tensor, geometry: _Geometry) -> Formed:
    """Sum over positions p of narrow[:, p] x patch of `wide` at p."""
    n_patch = math.prod(weight.shape[1:])
    n_positions = math.prod(narrow.shape[3:])
    bytes_each = (geometry.groups * n_positions + len(weight)) * n_patch * wide.shape[1] * wide.element_size()
    return Formed(functools.partial(_matrices, wide.contiguous(), narrow.flatten(3), geometry, n_patch), bytes_each)


def _matrices(
    wide: Tensor, narrow: Tensor, geometry: _Geometry, n_patch: int, examples: slice, swapped: bool
) -> Float[Tensor, "example row column"]:
    x, delta = wide[examples].flatten(0, 1), narrow[examples].flatten(0, 1)
    n, groups, images = len(x), geometry.groups, wide.shape[1]
    patches = _patches(x, geometry).reshape(n * groups, n_patch, -1)
    delta = delta.reshape(n * groups, -1, delta.shape[2])
    if swapped and groups == 1:
        return _summed(torch.bmm(patches, delta.mT), images)
    grad = _summed(torch.bmm(delta, patches.mT).reshape(n, -1, n_patch), images)
    return grad.mT if swapped else grad


def _summed(grads: Float[Tensor, "image row column"], images: int) -> Float[Tensor, "example row column"]:
    return grads if images == 1 else grads.reshape(-1, images, *grads.shape[1:]).sum(1)


def _patches(x: Tensor, geometry: _Geometry) -> Tensor:
    """[B, C, *kernel, *positions]: a strided view, so one expression serves 1, 2 and 3 axes and any dilation."""
    steps = x.stride()
    within = [step * dilation for step, dilation in zip(steps[2:], geometry.dilation, strict=True)]
    between = [step * stride for step, stride in zip(steps[2:], geometry.stride, strict=True)]
    size = (*x.shape[:2], *geometry.kernel, *geometry.positions)
    return x.as_strided(size, (*steps[:2], *within, *between), x.storage_offset())


def _each(value: int | Sequence[int], axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def _padded(x: Tensor, padding: int | str | Sequence[int], geometry: _Geometry) -> Tensor:
    widths = _widths(padding, geometry)
    return functional.pad(x, widths) if any(widths) else x  # padding by nothing copies


def _widths(padding: int | str | Sequence[int], geometry: _Geometry) -> list[int]:
    """What `functional.pad` wants: last axis first, both ends. `same` pads an odd rest at the end."""
    if padding == "valid":
        return [0, 0] * len(geometry.kernel)
    if padding == "same":
        spare = [dilation * (kernel - 1) for dilation, kernel in zip(geometry.dilation, geometry.kernel, strict=True)]
        ends = [(total // 2, total - total // 2) for total in spare]
    else:
        assert not isinstance(padding, str)
        ends = [(width, width) for width in _each(padding, len(geometry.kernel))]
    return [width for end in reversed(ends) for width in end]
