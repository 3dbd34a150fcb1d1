"""LayerNorm, GroupNorm and BatchNorm in eval mode: the gradient of the scale is delta times the normalised input."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.nn import functional

from gradstore.gradients.capture import Call
from gradstore.gradients.rules.base import Emit, NoRuleError, total

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d


def layer_norm(module: nn.LayerNorm, calls: Sequence[Call], emit: Emit) -> None:
    """Parameters have the normalised shape; positions in front of it are summed."""
    shape = module.normalized_shape

    def positions(values: Tensor) -> Tensor:
        return values.reshape(len(values), -1, *shape)

    _affine(calls, emit, lambda x: functional.layer_norm(x, shape, eps=module.eps), positions)


def group_norm(module: nn.GroupNorm, calls: Sequence[Call], emit: Emit) -> None:
    """One parameter a channel (axis 1)."""
    _require_one_row(calls, emit)
    groups, eps = module.num_groups, module.eps
    _affine(calls, emit, lambda x: functional.group_norm(x, groups, eps=eps), _channels_last)


def batch_norm(module: BatchNorm, calls: Sequence[Call], emit: Emit) -> None:
    """Running statistics only: an example must not see its neighbours, and the statistics must not move."""
    _require_one_row(calls, emit)
    mean, variance = module.running_mean, module.running_var
    if module.training or mean is None or variance is None:
        raise NoRuleError("it uses the statistics of the batch")
    mean, variance = mean.to(calls[0].input.dtype), variance.to(calls[0].input.dtype)
    _affine(calls, emit, lambda x: functional.batch_norm(x, mean, variance, eps=module.eps), _channels_last)


def _require_one_row(calls: Sequence[Call], emit: Emit) -> None:
    if any(len(call.input) != emit.n_examples for call in calls):
        raise NoRuleError("it is called with several rows an example")


def _channels_last(values: Tensor) -> Tensor:
    return values.reshape(len(values), values.shape[1], -1).mT


def _affine(
    calls: Sequence[Call], emit: Emit, normalise: Callable[[Tensor], Tensor], positions: Callable[[Tensor], Tensor]
) -> None:
    deltas = [emit.per_example(call.grad) for call in calls]
    if emit.wants("weight"):
        inputs = [emit.per_example(normalise(call.input)) for call in calls]
        emit.vector("weight", total([positions(d * x).sum(1) for d, x in zip(deltas, inputs, strict=True)]))
    if emit.wants("bias"):
        emit.vector("bias", total([positions(d).sum(1) for d in deltas]))
