"""The k best rows so far."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradstore.search.neighbours import Neighbours


class RunningBest:
    """The k highest scores of every query among the rows seen so far.

    Rows must arrive in ascending order: then a stable sort lets the lower row win every tie, within a call,
    between calls and at the k-th place. `scores` [q, k] float64 and `indices` [q, k] hold what was found, best first.
    """

    def __init__(self, n_queries: int, k: int, device: torch.device | str) -> None:
        self.k = k
        self.scores = torch.full((n_queries, k), -torch.inf, dtype=torch.float64, device=device)
        self.indices = torch.full((n_queries, k), -1, dtype=torch.int64, device=device)

    @property
    def floor(self) -> Float[Tensor, " query"]:
        """What a later row must exceed; -inf while there is room."""
        return self.scores[:, -1]

    def add(self, scores: Float[Tensor, "query row"], indices: Int[Tensor, " row"]) -> None:
        """Rows above all earlier ones; a score of -inf never enters."""
        scores = torch.cat([self.scores, scores], dim=1)
        indices = torch.cat([self.indices, indices.expand(len(scores), -1)], dim=1)
        ordered = torch.sort(scores, dim=1, descending=True, stable=True)
        self.scores = ordered.values[:, : self.k].contiguous()
        self.indices = indices.gather(1, ordered.indices[:, : self.k])

    def neighbours(self, sign: int = 1) -> Neighbours:
        """What was found, with the scores' sign restored."""
        scores = (self.scores * sign + 0.0).cpu().numpy()  # + 0.0: no -0.0 in a table
        return Neighbours(self.indices.cpu().numpy(), scores.astype(np.float32))
