"""Normalisations: the gradient of the scale is delta times the normalised input, of the shift delta."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from gradstore.gradients.forms import Dense
from gradstore.gradients.rules.base import Call, Found, NoRuleError


def layer_norm(
    call: Call,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Found:
    """Parameters have the normalised shape; positions in front of it are summed."""
    return _over_positions(call, input, weight, bias, lambda x: functional.layer_norm(x, normalized_shape, eps=eps))


def rms_norm(
    call: Call, input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Found:
    """Scaled by the root of the mean square, no shift."""
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    return _over_positions(call, input, weight, None, lambda x: functional.rms_norm(x, normalized_shape, eps=eps))


def group_norm(
    call: Call,
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Found:
    """One parameter a channel (axis 1)."""
    return _by_channel(call, input, weight, bias, lambda x: functional.group_norm(x, num_groups, eps=eps))


def instance_norm(
    call: Call,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Found:
    """By the statistics of each example's own channels, or by running ones."""
    mean, variance = (None if use_input_stats or s is None else s.to(call.dtype) for s in (running_mean, running_var))
    return _by_channel(
        call,
        input,
        weight,
        bias,
        lambda x: functional.instance_norm(x, mean, variance, use_input_stats=use_input_stats, eps=eps),
    )


def batch_norm(
    call: Call,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Found:
    """Running statistics only: an example must not see its neighbours, and the statistics must not move."""
    if training or running_mean is None or running_var is None:
        raise NoRuleError("it uses the statistics of the batch")
    mean, variance = running_mean.to(call.dtype), running_var.to(call.dtype)
    return _by_channel(call, input, weight, bias, lambda x: functional.batch_norm(x, mean, variance, eps=eps))


def prelu(call: Call, input: Tensor, weight: Tensor) -> Found:
    """max(x, 0) + w min(x, 0), one slope or one a channel."""
    first = call.grads[0]
    if first is None or call.wants(input):
        raise NoRuleError("no gradient reaches its output, or its input is a parameter")
    product = first.to(call.dtype) * input.to(call.dtype).clamp_max(0)
    if weight.numel() == 1:
        values = call.examples_first(product)
        yield weight, Dense(values.reshape(call.n_examples, -1).sum(1).reshape(-1, *weight.shape))
    else:
        yield weight, Dense(_channel_sums(call, product))


def _over_positions(
    call: Call, input: Tensor, weight: Tensor | None, bias: Tensor | None, normalise: Callable[[Tensor], Tensor]
) -> Found:
    """Parameters that have the last axes of the output."""
    delta = call.grad
    for parameter in (weight, bias):
        if parameter is not None and call.wants(parameter):
            values = delta
            if parameter is weight:
                values = delta * call.examples_first(normalise(input.to(call.dtype)))
            yield parameter, Dense(values.reshape(len(values), -1, *parameter.shape).sum(1))


def _by_channel(
    call: Call, input: Tensor, weight: Tensor | None, bias: Tensor | None, normalise: Callable[[Tensor], Tensor]
) -> Found:
    """Parameters that have axis 1 of the output. Statistics are taken in the working precision."""
    grad = call.grads[0]
    for parameter in (weight, bias):
        if parameter is not None and grad is not None and call.wants(parameter):
            values = grad.to(call.dtype)
            if parameter is weight:
                values = values * normalise(input.to(call.dtype))
            yield parameter, Dense(_channel_sums(call, values))


def _channel_sums(call: Call, values: Float[Tensor, "row channel ..."]) -> Float[Tensor, "example channel"]:
    """Sums over everything but the channels; an example may have several rows."""
    if call.operation.layout.axis != 0:
        raise NoRuleError("the examples are not in front")
    rows = values if values.dim() == 2 else values.flatten(2).sum(2)
    return call.examples_first(rows).reshape(call.n_examples, -1, values.shape[1]).sum(1)
