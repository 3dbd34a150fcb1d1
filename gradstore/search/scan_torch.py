"""The scan in plain torch: on a GPU, and where numba is missing."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float16, Float32, Float64, Int64
from torch import Tensor

from gradstore.search.blocks import Block, Stager
from gradstore.search.question import Question
from gradstore.search.running import RunningBest
from gradstore.search.scan import UNDERFLOW, Hidden, Scan

_PAIR_NUMBERS = 1 << 23  # float64 numbers held at once while pairs are settled: 64 MiB


class TorchScan(Scan):
    """`Scan` on any device."""

    def __init__(
        self, question: Question, k: int, signs: tuple[int, ...], hidden: Hidden, device: torch.device | str
    ) -> None:
        self._device = torch.device(device)
        super().__init__(question, k, signs, hidden)

    def run(self, blocks: Iterator[Block]) -> None:
        for block, units in Stager(self._device).staged(blocks):
            self._see(block, units)

    def _empty(self, n_queries: int, k: int) -> RunningBest:
        return RunningBest(n_queries, k, self._device)

    def _see(self, block: Block, units: Float16[Tensor, "checkpoint row d_sketch"]) -> None:
        screen_weights = torch.tensor(block.screen_weights, device=self._device)
        scores, squares = self._screen(units, screen_weights)
        slack = squares.sqrt() * self._question.rounding + UNDERFLOW
        slack.masked_fill_((screen_weights == 0).all(dim=0), 0.0)
        rows, queries = torch.nonzero(self._may_enter(scores, slack, block.scale), as_tuple=True)
        self._n_seen += len(scores)
        numbers = torch.tensor(block.rows, device=self._device)[rows]
        self._offer(queries, numbers, self._settled(block, units, rows, queries))

    def _may_enter(
        self, scores: Float32[Tensor, "row query"], slack: Float32[Tensor, " row"], scale: float
    ) -> Bool[Tensor, "row query"]:
        """Scores that float32 cannot rule out, for any end."""
        possible = torch.zeros_like(scores, dtype=torch.bool)
        for sign in self.best:
            bounds = self._bounds(sign, scale)
            if self._is_first(len(scores)):
                bounds = self._bounds_within(sign, bounds, scores, slack)
            possible |= torch.add(slack[:, None], scores, alpha=sign) > bounds
        return possible

    def _screen(
        self, units: Float16[Tensor, "checkpoint row d_sketch"], weights: Float32[Tensor, "checkpoint row"]
    ) -> tuple[Float32[Tensor, "row query"], Float32[Tensor, " row"]]:
        """Scores in float32 (rows first: for few queries this order of the product is the faster one), squares."""
        scores = torch.zeros(units.shape[1], len(self._question), device=units.device)
        squares = torch.zeros(units.shape[1], device=units.device)
        for part, weight, asked in zip(units, weights, self._question.screen, strict=True):
            wide = (part.float() * weight[:, None]).masked_fill_(weight[:, None] == 0, 0.0)
            scores.addmm_(wide, asked.T)
            squares += torch.linalg.vector_norm(wide, dim=1).square_()
        return scores, squares

    def _settled(
        self,
        block: Block,
        units: Float16[Tensor, "checkpoint row d_sketch"],
        rows: Int64[Tensor, " pair"],
        queries: Int64[Tensor, " pair"],
    ) -> Float64[Tensor, " pair"]:
        """Exact scores of chosen pairs; the store may hold anything for an empty row."""
        scores = torch.zeros(len(rows), dtype=torch.float64, device=self._device)
        for t, part in enumerate(units):
            weights = torch.tensor(block.weights[t], device=self._device)[rows]
            score = self._dots(t, part, rows, queries) * self._question.weights[t][queries] * weights
            scores += torch.where(weights == 0, 0.0, score)
        return scores

    def _dots(
        self,
        checkpoint: int,
        units: Float16[Tensor, "row d_sketch"],
        rows: Int64[Tensor, " pair"],
        queries: Int64[Tensor, " pair"],
    ) -> Float64[Tensor, " pair"]:
        """Exact dot products of chosen pairs."""
        asked, step = self._question.units[checkpoint], max(1, _PAIR_NUMBERS // units.shape[1])
        parts = zip(torch.split(rows, step), torch.split(queries, step), strict=True)
        found = [(units[r].double() * asked[q].double()).sum(dim=1) for r, q in parts]
        return torch.cat([torch.empty(0, dtype=torch.float64, device=units.device), *found])
