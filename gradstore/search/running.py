"""The k best rows so far."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from gradstore.search.neighbours import Neighbours


class Best(Protocol):
    """The k highest scores of every query among the rows offered so far, the lower row first among equals."""

    @property
    def floor(self) -> Float[Tensor, " query"]:
        """The k-th best score, which a later row must exceed; -inf while there is room."""

    def add_pairs(
        self, queries: Int[Tensor, " pair"], rows: Int[Tensor, " pair"], scores: Float64[Tensor, " pair"]
    ) -> None:
        """Offer rows to queries. Rows ascend from call to call; a score of -inf never enters."""

    def neighbours(self, sign: int = 1) -> Neighbours:
        """What was found, best first, with the scores' sign restored."""


class RunningBest:
    """`Best` by sorting, on any device.

    Rows must arrive in ascending order: then a stable sort lets the lower row win every tie, within a call,
    between calls and at the k-th place. `scores` [q, k] float64 and `indices` [q, k] hold what was found, best first.
    """

    def __init__(self, n_queries: int, k: int, device: torch.device | str) -> None:
        self.k = k
        self.scores = torch.full((n_queries, k), -torch.inf, dtype=torch.float64, device=device)
        self.indices = torch.full((n_queries, k), -1, dtype=torch.int64, device=device)

    @property
    def floor(self) -> Float[Tensor, " query"]:
        return self.scores[:, -1]

    def add(self, scores: Float[Tensor, "query row"], indices: Int[Tensor, " row"]) -> None:
        """Rows above all earlier ones, offered to every query; a score of -inf never enters."""
        scores = torch.cat([self.scores, scores], dim=1)
        indices = torch.cat([self.indices, indices.expand(len(scores), -1)], dim=1)
        ordered = torch.sort(scores, dim=1, descending=True, stable=True)
        self.scores = ordered.values[:, : self.k].contiguous()
        self.indices = indices.gather(1, ordered.indices[:, : self.k])

    def add_pairs(
        self, queries: Int[Tensor, " pair"], rows: Int[Tensor, " pair"], scores: Float64[Tensor, " pair"]
    ) -> None:
        """As `add`, for single (query, row) pairs in ascending order of rows."""
        n_queries, device = len(self.scores), self.scores.device
        owners = torch.cat([torch.arange(n_queries, device=device).repeat_interleave(self.k), queries])
        scores = torch.cat([self.scores.flatten(), scores])
        order = torch.sort(scores, descending=True, stable=True).indices
        order = order[torch.sort(owners[order], stable=True).indices]
        first = torch.searchsorted(owners[order], torch.arange(n_queries, device=device))
        kept = order[first[:, None] + torch.arange(self.k, device=device)]
        self.scores, self.indices = scores[kept], torch.cat([self.indices.flatten(), rows])[kept]

    def neighbours(self, sign: int = 1) -> Neighbours:
        scores = (self.scores * sign + 0.0).cpu().numpy()  # + 0.0: no -0.0 in a table
        return Neighbours(self.indices.cpu().numpy(), scores.astype(np.float32))


class HeapBest:
    """`Best` by one heap a query, compiled: a row that enters costs log k, in any order of rows."""

    def __init__(self, n_queries: int, k: int) -> None:
        self._scores = np.full((n_queries, k), -np.inf)
        self._rows = np.full((n_queries, k), -1, dtype=np.int64)
        self._sizes = np.zeros(n_queries, dtype=np.int64)

    @property
    def floor(self) -> Float[Tensor, " query"]:
        full = self._sizes == self._scores.shape[1]
        return torch.from_numpy(np.where(full, self._scores[:, 0], -np.inf))

    def add_pairs(
        self, queries: Int[Tensor, " pair"], rows: Int[Tensor, " pair"], scores: Float64[Tensor, " pair"]
    ) -> None:
        from gradstore.search.kernels import push

        push(self._scores, self._rows, self._sizes, queries.numpy(), rows.numpy(), scores.numpy())

    def neighbours(self, sign: int = 1) -> Neighbours:
        order = np.lexsort((self._rows, -self._scores), axis=1)
        scores = np.take_along_axis(self._scores, order, 1) * sign + 0.0
        return Neighbours(np.take_along_axis(self._rows, order, 1), scores.astype(np.float32))
