"""Embeddings: each position adds its output gradient to the row of its token; in a bag, times its weight there."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradstore.gradients.forms import Rows
from gradstore.gradients.rules.base import Call, Found, NoRuleError


def embedding(
    call: Call,
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Found:
    """Tokens of any shape; `padding_idx` has no gradient."""
    if max_norm is not None or scale_grad_by_freq:
        raise NoRuleError("max_norm and scale_grad_by_freq change the table or depend on the batch")
    if weight.dim() != 2:
        raise NoRuleError("the table is no matrix")
    rows = call.delta
    index = call.examples_first(input).reshape(call.n_examples, -1).long()
    if padding_idx is not None:
        rows = rows * (index != padding_idx % len(weight))[..., None]
    yield weight, Rows(index, rows, len(weight))


def embedding_bag(
    call: Call,
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Found:
    """Sums or means of bags: rows of a matrix of tokens, or stretches of a vector that begin at `offsets`."""
    if max_norm is not None or scale_grad_by_freq or mode == "max":
        raise NoRuleError("it takes maxima, or max_norm or scale_grad_by_freq depend on the batch")
    if per_sample_weights is not None and call.wants(per_sample_weights):
        raise NoRuleError("its weights are parameters")
    factors = torch.ones_like(input, dtype=call.dtype) if per_sample_weights is None else per_sample_weights
    if padding_idx is not None:
        factors = factors * (input != padding_idx % len(weight))
    tokens = input
    if offsets is not None:
        starts = offsets[:-1] if include_last_offset else offsets
        tokens, factors = (_as_matrix(values, starts) for values in (tokens, factors))
    if mode == "mean":
        factors = factors / factors.sum(1, keepdim=True).clamp_min(1)
    rows = call.delta[:, :, None] * call.positions(factors)[..., None]
    yield weight, Rows(call.positions(tokens).flatten(1).long(), rows.flatten(1, 2), len(weight))


def index_select(call: Call, input: Tensor, dim: int, index: Tensor) -> Found:
    """`table.index_select(0, tokens)`: an embedding by another name."""
    if dim != 0 or call.wants(index):
        raise NoRuleError("it selects along another axis than the first")
    return embedding(call, index, input)


def getitem(call: Call, input: Tensor, index: object) -> Found:
    """`table[tokens]`."""
    if not isinstance(index, Tensor) or index.dtype not in (torch.int64, torch.int32):
        raise NoRuleError("it is indexed by more than one tensor of integers")
    return embedding(call, index % len(input), input)


def _as_matrix(values: Float[Tensor, " token"] | Int[Tensor, " token"], starts: Int[Tensor, " bag"]) -> Tensor:
    """Bags of a flat vector as rows, filled up with zeros."""
    ends = torch.cat([starts[1:], starts.new_tensor([len(values)])])
    columns = torch.arange(max(1, int((ends - starts).max())), device=values.device)
    where = starts[:, None] + columns
    inside = where < ends[:, None]
    return values[where.clamp_max(len(values) - 1)] * inside
