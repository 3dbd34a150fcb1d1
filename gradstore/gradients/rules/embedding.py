"""Embedding: each position adds its output gradient to the row of its token."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from gradstore.gradients.capture import Call
from gradstore.gradients.rules.base import Emit, NoRuleError, joined


def embedding(module: nn.Embedding, calls: Sequence[Call], emit: Emit) -> None:
    """Tokens of any shape after the examples' axis; `padding_idx` has no gradient."""
    if module.max_norm is not None or module.scale_grad_by_freq:
        raise NoRuleError("max_norm and scale_grad_by_freq change the table or depend on the batch")
    index = joined([emit.per_example(call.input).reshape(emit.n_examples, -1) for call in calls], dim=1)
    width = module.embedding_dim
    rows = joined([emit.per_example(call.grad).reshape(emit.n_examples, -1, width) for call in calls], dim=1)
    if module.padding_idx is not None:
        rows = rows * (index != module.padding_idx)[..., None]
    emit.rows("weight", index, rows)
