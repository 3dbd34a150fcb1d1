"""The nearest rows of many queries: float32 products choose candidates, float64 differences measure them.

    |q - x|² = |q|² - 2 (<q, x> - |x|² / 2)

A product of one block of queries and one of rows is the whole cost, at the speed of the machine's matrix product. It
is off by at most (width + 64) 2^-24 (|q| + |x|)². So more candidates are kept than are asked for, and where even the
last of them is not that much farther than the k-th neighbour, the answer is not certain and says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor

from gradstore.compiled import has_numba
from gradstore.search.running import Best, HeapBest, RunningBest
from gradstore.search.space import Space, rows_of_distances

_GROUP = 1024
"""queries multiplied at once"""
_ROUNDING = 2.0**-24


def n_candidates(k: int, n_examples: int) -> int:
    """How many rows are measured for each k asked for: twice as many and a dozen, or all others."""
    return min(2 * k + 12, n_examples - 1)


@dataclass(frozen=True, eq=False)
class Found:
    """Neighbours of some rows, nearest first, the lower row first among equals."""

    indices: Int64[np.ndarray, "row k"]
    distances: Float32[np.ndarray, "row k"]
    certain: Bool[np.ndarray, " row"]
    """whether no row that was looked at is nearer"""
    filled: Bool[np.ndarray, " row"]
    """whether there were k candidates at all"""


class Screen:
    """Looks at rows of a space in any order on behalf of a range of its rows, none of which finds itself."""

    def __init__(
        self,
        space: Space,
        start: int,
        stop: int,
        k: int,
        *,
        rounding: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        """`rounding`: relative error of a product with points that are shown less exactly than float32 has them."""
        self._space, self._k, self._device = space, k, torch.device(device)
        self._centre = centre_of(space, device)
        self._numbers = np.arange(start, stop)
        self._queries = self._own(start, stop)
        self._keep = n_candidates(k, space.n_examples)
        self._best = _best(stop - start, self._keep, self._device)
        self._longest, self._rounding = 0.0, rounding

    def _own(self, start: int, stop: int) -> Float32[Tensor, "row width"]:
        """A part at a time: float64 points of a whole shard are never held."""
        step = rows_of_distances(self._space.width())
        spans = ((at, min(at + step, stop)) for at in range(start, stop, step))
        return torch.cat([self.centred(self._space.points(*s, asking=True, device=self._device)) for s in spans])

    @property
    def queries(self) -> Float32[Tensor, "row width"]:
        """The range's own points, less the centre."""
        return self._queries

    def centred(self, points: Float[Tensor, "row width"]) -> Float32[Tensor, "row width"]:
        """Points as `see` takes them."""
        return (points - self._centre.to(points.dtype)).float()

    def see(
        self,
        points: Float32[Tensor, "seen width"],
        numbers: Int64[np.ndarray, " seen"],
        which: Int64[np.ndarray, " query"] | None = None,
    ) -> None:
        """Offer rows, by ascending number, to all rows of the range or to some (`which`, from 0 on)."""
        half = points.square().sum(dim=1) / 2
        self._longest = max(self._longest, float(half.max()))
        which = np.arange(len(self._numbers)) if which is None else which
        for at in range(0, len(which), _GROUP):
            self._offer(which[at : at + _GROUP], points, half, numbers)

    def _offer(
        self,
        which: Int64[np.ndarray, " query"],
        points: Float32[Tensor, "seen width"],
        half: Float32[Tensor, " seen"],
        numbers: Int64[np.ndarray, " seen"],
    ) -> None:
        chosen = torch.from_numpy(which).to(self._device)
        scores = torch.addmm(-half, self._queries[chosen], points.T)
        own = _places(numbers, self._numbers[which])
        scores[torch.from_numpy(np.flatnonzero(own >= 0)), torch.from_numpy(own[own >= 0])] = -torch.inf
        queries, rows = torch.nonzero(self._enters(chosen, scores), as_tuple=True)
        if len(queries):
            seen = torch.from_numpy(numbers).to(self._device)
            self._best.add_pairs(chosen[queries], seen[rows], scores[queries, rows].double())

    def _enters(
        self, chosen: Int64[Tensor, " query"], scores: Float32[Tensor, "query seen"]
    ) -> Bool[Tensor, "query seen"]:
        """Scores above the last that is kept; before so many are known, above the last that this block would keep."""
        floor = self._best.floor[chosen]
        enters = scores > floor.float()[:, None]
        if scores.shape[1] > self._keep and bool((floor == -torch.inf).any()):
            enters &= scores >= torch.topk(scores, self._keep, dim=1).values[:, -1:]
        return enters

    def found(self) -> Found:
        """The k nearest of what was seen, measured anew."""
        candidates = self._within_reach()
        squares = self._squares(candidates)
        order = np.lexsort((candidates, squares), axis=1)[:, : self._k]
        nearest = np.take_along_axis(squares, order, axis=1)
        distances = self._space.distances(torch.from_numpy(nearest)).numpy().astype(np.float32)
        filled = (candidates >= 0).sum(axis=1) >= self._k
        return Found(np.take_along_axis(candidates, order, axis=1), distances, nearest[:, -1] < self._beyond(), filled)

    def _within_reach(self) -> Int64[np.ndarray, "row candidate"]:
        """What was kept, -1 for what is too far behind the k-th to come before it by rounding."""
        kept = self._best.neighbours()
        slack = self._slack().cpu().numpy()[:, None]
        behind = kept.scores < kept.scores[:, self._k - 1 : self._k] - 2.0 * slack
        return np.where(behind, -1, kept.indices)

    def _slack(self) -> Float64[Tensor, " row"]:
        """By how much a score may be off."""
        reach: Tensor = torch.linalg.vector_norm(self._queries, dim=1).double() + (2.0 * self._longest) ** 0.5
        relative = (self._queries.shape[1] + 64) * _ROUNDING + self._rounding
        return reach.square().mul_(relative)

    def _squares(self, candidates: Int64[np.ndarray, "row candidate"]) -> Float64[np.ndarray, "row candidate"]:
        """|q - x|² by differences; infinity where there is no candidate."""
        squares = np.full(candidates.shape, np.inf)
        step = max(1, rows_of_distances(self._queries.shape[1]) // (2 * candidates.shape[1]))
        for at in range(0, len(candidates), step):
            part = candidates[at : at + step]
            query, column = np.nonzero(part >= 0)
            asked = self._space.points_at(self._numbers[at : at + step], asking=True, device=self._device)
            seen, inverse = np.unique(part[query, column], return_inverse=True)
            points = self._space.points_at(seen, device=self._device)
            pairs = self._space.sq_distances(asked[torch.from_numpy(query)], points[torch.from_numpy(inverse)])
            squares[at + query, column] = pairs.cpu().numpy()
        return squares

    def _beyond(self) -> Float64[np.ndarray, " row"]:
        """What no row that was seen and not kept can be nearer than; infinity where all were kept."""
        if self._keep == self._space.n_examples - 1:
            return np.full(len(self._numbers), np.inf)
        sq_lengths = torch.linalg.vector_norm(self._queries, dim=1).double().square()
        beyond = sq_lengths - 2.0 * self._best.floor - 2.0 * self._slack() - self._space.grain
        return np.asarray(beyond.cpu())


def centre_of(space: Space, device: torch.device | str = "cpu", at_most: int = 1024) -> Float64[Tensor, " width"]:
    """Mean of a few rows. Distances do not depend on it, but float32 keeps more digits of points that lie around 0."""
    if space.metric == "cosine":
        return torch.zeros(space.width(), dtype=torch.float64, device=device)
    rows = np.unique(np.linspace(0, space.n_examples - 1, at_most).astype(np.int64))
    return space.points_at(rows, device=device).mean(dim=0)


def _best(n_queries: int, k: int, device: torch.device) -> Best:
    return HeapBest(n_queries, k) if device.type == "cpu" and has_numba() else RunningBest(n_queries, k, device)


def _places(numbers: Int64[np.ndarray, " seen"], wanted: Int64[np.ndarray, " row"]) -> Int64[np.ndarray, " row"]:
    """Where each wanted number stands in ascending `numbers`; -1 where it does not."""
    places = np.minimum(np.searchsorted(numbers, wanted), len(numbers) - 1)
    return np.where(numbers[places] == wanted, places, -1)
