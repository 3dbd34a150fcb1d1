"""Convolutions: unfold the input into patches, then the gradient is the linear layer's, position by position."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from gradstore.gradients.capture import Call
from gradstore.gradients.rules.base import Emit, NoRuleError, joined, total
from gradstore.gradients.sink import example_chunks

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def convolution(module: Convolution, calls: Sequence[Call], emit: Emit) -> None:
    """1, 2 or 3 spatial axes; stride, dilation, groups and every padding mode."""
    spatial = len(module.kernel_size)
    if any(call.input.dim() != spatial + 2 or len(call.input) != emit.n_examples for call in calls):
        raise NoRuleError("it is called without an axis of examples, or with several rows an example")
    deltas = [emit.per_example(call.grad).flatten(2) for call in calls]
    if emit.wants("bias"):
        emit.vector("bias", joined(deltas, dim=2).sum(2))
    if emit.wants("weight"):
        _weight(module, [_padded(module, emit.per_example(call.input)) for call in calls], deltas, emit)


def _weight(module: Convolution, inputs: list[Tensor], deltas: list[Tensor], emit: Emit) -> None:
    n_patch = module.in_channels // module.groups * math.prod(module.kernel_size)
    positions = sum(delta.shape[2] for delta in deltas)
    bytes_each = (module.groups * positions + module.out_channels) * n_patch * inputs[0].element_size()
    for rows in example_chunks(emit.n_examples, bytes_each):
        parts = [_grouped(module, x[rows], d[rows], n_patch) for x, d in zip(inputs, deltas, strict=True)]
        emit.chunk("weight", total(parts), rows.start)


def _grouped(module: Convolution, x: Tensor, delta: Tensor, n_patch: int) -> Float[Tensor, "example out patch"]:
    groups, n = module.groups, len(x)
    patches = _patches(module, x).reshape(n * groups, n_patch, -1)
    grad = torch.bmm(delta.reshape(n * groups, module.out_channels // groups, -1), patches.mT)
    return grad.reshape(n, module.out_channels, n_patch)


def _padded(module: Convolution, x: Tensor) -> Tensor:
    widths = module._reversed_padding_repeated_twice  # also right for padding='same', where padding is a word
    if not any(widths):
        return x.contiguous()
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    return functional.pad(x, widths, mode=mode).contiguous()


def _patches(module: Convolution, x: Tensor) -> Tensor:
    """[B, C, *kernel, *positions]: a strided view, so one expression serves 1, 2 and 3 axes and any dilation."""
    geometry = zip(x.shape[2:], module.kernel_size, module.stride, module.dilation, strict=True)
    positions = [(size - dilation * (kernel - 1) - 1) // stride + 1 for size, kernel, stride, dilation in geometry]
    steps = x.stride()
    within = [step * dilation for step, dilation in zip(steps[2:], module.dilation, strict=True)]
    between = [step * stride for step, stride in zip(steps[2:], module.stride, strict=True)]
    size = (*x.shape[:2], *module.kernel_size, *positions)
    return x.as_strided(size, (*steps[:2], *within, *between))
