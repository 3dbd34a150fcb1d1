"""One pass over blocks of rows: screen every score, settle those that may matter, keep the best.

What is the same on every device is here; how scores are screened and dot products settled is in `scan_torch` (any
device) and `scan_compiled` (CPU, with numba). Both give the same bits: what they settle is exact (see
`gradstore.search.question`), and what they rule out is out for certain.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from gradstore.search.blocks import Block
from gradstore.search.question import Question
from gradstore.search.running import Best

UNDERFLOW = 2.0**-100  # far above what float32 can lose below its range in d_sketch x n_checkpoints terms
_TIES = 2.0**-22  # float32's rounding of a floor, twice over


class Hidden:
    """Rows that a query may not find, one list a query."""

    def __init__(self, lists: Sequence[Int64[np.ndarray, " row"]], n_examples: int, device: torch.device | str) -> None:
        self._n_examples = n_examples
        self.most = max(map(len, lists), default=0)
        """length of the longest list"""
        known = [rows[(rows >= 0) & (rows < n_examples)] for rows in lists]
        keys = [query * n_examples + rows for query, rows in enumerate(known) if len(rows)]
        self._keys = torch.from_numpy(np.concatenate([np.empty(0, np.int64), *keys])).to(device)

    def mask(self, queries: Int64[Tensor, " pair"], rows: Int64[Tensor, " pair"]) -> Bool[Tensor, " pair"]:
        """Which pairs are hidden."""
        return torch.isin(queries * self._n_examples + rows, self._keys)


class Scan(ABC):
    """Takes in blocks of rows; `best` holds a result for each sign: 1 for the highest scores, -1 for the lowest."""

    def __init__(self, question: Question, k: int, signs: tuple[int, ...], hidden: Hidden) -> None:
        self._question, self._k, self._hidden = question, k, hidden
        self.best: dict[int, Best] = {sign: self._empty(len(question), k) for sign in signs}
        self._never = torch.full_like(question.reach, torch.inf, dtype=torch.float32)
        self._n_seen = 0

    @abstractmethod
    def run(self, blocks: Iterator[Block]) -> None:
        """Take in all blocks."""

    @abstractmethod
    def _empty(self, n_queries: int, k: int) -> Best:
        """A `Best` that holds nothing."""

    def _bounds(self, sign: int, scale: float) -> Float32[Tensor, " query"]:
        """What a score times `sign`, plus its slack, must exceed to be among the k best; inf if that sign is not asked.

        Ties with the k-th place lose, for theirs is the higher row.
        """
        if sign not in self.best:
            return self._never
        floor = self.best[sign].floor
        bounds = floor / (self._question.reach * scale)
        bounds -= bounds.abs() * _TIES
        if self._n_seen < self._k:
            return bounds.float()
        return torch.where(self._question.is_zero & (floor > -torch.inf), torch.inf, bounds).float()

    def _bounds_within(
        self,
        sign: int,
        bounds: Float32[Tensor, " query"],
        scores: Float32[Tensor, "row query"],
        slack: Float32[Tensor, " row"],
    ) -> Float32[Tensor, " query"]:
        """Higher `bounds` before k rows are known: what k rows of this block reach for certain."""
        if sign not in self.best:
            return bounds
        lower = (scores * sign - slack[:, None]).T.contiguous()
        kth = torch.topk(lower, self._k + self._hidden.most, dim=1).values[:, -1]
        return torch.maximum(bounds, kth - kth.abs() * _TIES - UNDERFLOW)

    def _is_first(self, n_rows: int) -> bool:
        """Whether `_bounds_within` tells more than `_bounds`."""
        enough = self._k + self._hidden.most
        return self._n_seen < enough <= n_rows

    def _offer(
        self, queries: Int64[Tensor, " pair"], rows: Int64[Tensor, " pair"], scores: Float64[Tensor, " pair"]
    ) -> None:
        """Hand exact scores to what was found; `rows` are numbers of the store."""
        hidden = self._hidden.mask(queries, rows) if self._hidden.most else None
        for sign, best in self.best.items():
            signed = scores * sign
            best.add_pairs(queries, rows, signed if hidden is None else signed.masked_fill(hidden, -torch.inf))
