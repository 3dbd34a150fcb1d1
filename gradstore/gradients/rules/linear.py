"""Linear: dW = sum over positions of delta a^T; with one position it has rank one and is never formed."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from gradstore.gradients.capture import Call
from gradstore.gradients.rules.base import Emit, joined


def linear(module: nn.Linear, calls: Sequence[Call], emit: Emit) -> None:
    """Any number of leading axes after the examples'; several calls are further positions."""
    deltas = [emit.per_example(call.grad) for call in calls]
    delta = joined([d.reshape(len(d), -1, module.out_features) for d in deltas], dim=1)
    if emit.wants("weight"):
        inputs = [emit.per_example(call.input) for call in calls]
        a = joined([x.reshape(len(x), -1, module.in_features) for x in inputs], dim=1)
        emit.product("weight", delta.mT, a)
    if emit.wants("bias"):
        emit.vector("bias", delta.sum(1))
