"""Exact search: one pass over the store, block by block, the same answer whatever the blocks, batch or device.

    score(q, x) = sum_t a_t(q) <u_t(q), u_t(x)> b_t(x)          (the weights: `gradstore.search.weights`)

Why two precisions. A float32 matrix product rounds differently for other block sizes and batch sizes, so equal
rows would get unequal scores and the order of near ties would depend on how the work was cut. Yet float64 costs
twice as much. So float32 *screens*: a row whose score plus its worst rounding error stays below the k-th best is
out, for certain. The few that remain are *settled* in float64, where the product is exact: stored values are
float16, hence multiples of 2^-24; queries are rounded to that grid (an error of 2^-25 a coordinate); products
are multiples of 2^-48, and their partial sums stay below 32 because rows have norm about 1, so all of them fit
into 53 bits and no order of summation rounds. What is then left, one multiplication by weights a checkpoint, is
done element by element.

Memory: a block (64 MiB), q x block scores, and the exact norms (4 bytes an example and checkpoint).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from gradstore.search.checks import check_k, check_queries, excluded_rows
from gradstore.search.index import IndexCard
from gradstore.search.neighbours import Neighbours
from gradstore.search.rows import QuerySketches, SketchRows, StoredRows, all_norms, block_rows_within, to_device
from gradstore.search.running import RunningBest
from gradstore.search.weights import Normalise, check_normalise, example_weights, query_weights

_GROUP = 256  # queries that share one matrix product; bounds q x block
_GRID = 2.0**24
_UNDERFLOW = 2.0**-100  # far above what float32 can lose below its range in d_sketch x n_checkpoints terms


def exact_search(
    rows: SketchRows,
    queries: QuerySketches,
    k: int,
    *,
    largest: bool = True,
    normalise: Normalise = "none",
    exclude: Sequence[int] | None = None,
    block_rows: int | None = None,
    device: torch.device | str = "cpu",
) -> Neighbours:
    """The k rows with the highest scores (proponents), or the lowest (opponents), of every query.

    Args:
        rows: the store.
        queries: sketched with the store's own model, checkpoints and projection.
        largest: True for proponents, False for opponents (lowest score first).
        normalise: see `gradstore.search.weights`.
        exclude: one row a query that it may not find, such as itself; -1 for none.
        block_rows: rows a block; the answer does not depend on it.

    Raises:
        QueryError: k that the store cannot answer, or an unknown normalise.
        ShapeError: queries that do not fit the store.
        StoreCorruptError: gradient norms that are not finite numbers.
    """
    sign = 1 if largest else -1
    return _scan(rows, queries, k, (sign,), normalise, exclude, block_rows, device)[0]


def exact_both_ends(
    rows: SketchRows,
    queries: QuerySketches,
    k: int,
    *,
    normalise: Normalise = "none",
    exclude: Sequence[int] | None = None,
    block_rows: int | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Neighbours, Neighbours]:
    """(proponents, opponents) in one pass; the same as two calls of `exact_search`."""
    proponents, opponents = _scan(rows, queries, k, (1, -1), normalise, exclude, block_rows, device)
    return proponents, opponents


class ExactIndex:
    """The exact search as an index: nothing to build, and the store itself is the data."""

    def __init__(self, rows: StoredRows, normalise: Normalise = "none", device: torch.device | str = "cpu") -> None:
        check_normalise(normalise)
        self._rows, self.normalise, self._device = rows, normalise, device

    @classmethod
    def build(cls, rows: StoredRows, normalise: Normalise = "none") -> ExactIndex:
        return cls(rows, normalise)

    def search(
        self,
        queries: QuerySketches,
        k: int,
        *,
        largest: bool = True,
        normalise: Normalise | None = None,
        exclude: Sequence[int] | None = None,
    ) -> Neighbours:
        reading = self.normalise if normalise is None else normalise
        return exact_search(
            self._rows, queries, k, largest=largest, normalise=reading, exclude=exclude, device=self._device
        )

    def save(self, path: Path) -> None:
        IndexCard.of(self._rows, kind="exact", normalise=self.normalise).write(path)

    @classmethod
    def load(cls, path: Path, rows: StoredRows) -> ExactIndex:
        return cls(rows, IndexCard.read(path, rows, kind="exact").normalise)


def _scan(
    rows: SketchRows,
    queries: QuerySketches,
    k: int,
    signs: tuple[int, ...],
    normalise: Normalise,
    exclude: Sequence[int] | None,
    block_rows: int | None,
    device: torch.device | str,
) -> list[Neighbours]:
    """One pass; a result for each sign, in order."""
    check_normalise(normalise)
    check_queries(rows, queries)
    excluded = excluded_rows(exclude, len(queries))
    check_k(k, rows.n_examples, excluding=bool((excluded >= 0).any()))
    groups = [
        _Group(queries, slice(start, start + _GROUP), excluded, rows.learning_rates, normalise, k, signs, device)
        for start in range(0, len(queries), _GROUP)
    ]
    for block in _blocks(rows, normalise, block_rows, device):
        for group in groups:
            group.see(block)
    return [_stacked([group.best[sign].neighbours(sign) for group in groups], k) for sign in signs]


def _stacked(parts: list[Neighbours], k: int) -> Neighbours:
    nothing = Neighbours(np.empty((0, k), np.int64), np.empty((0, k), np.float32))
    parts = [nothing, *parts]
    return Neighbours(np.concatenate([p.indices for p in parts]), np.concatenate([p.scores for p in parts]))


@dataclass(frozen=True, eq=False)
class _Block:
    """Consecutive rows on the device."""

    start: int
    units: list[Float[Tensor, "row d_sketch"]]
    """One a checkpoint, float32: every float16 value as it is."""
    weights: Float[Tensor, "checkpoint row"]
    """b_t(x), float64."""
    scale: float
    """The largest weight: float32 screens weights divided by it."""
    screen_weights: Float[Tensor, "checkpoint row"]
    """b_t(x) / scale, float32."""
    reach: Float[Tensor, "row checkpoint"]
    """|u_t(x)| b_t(x) / scale: what a rounding error is relative to."""


def _blocks(
    rows: SketchRows, normalise: Normalise, block_rows: int | None, device: torch.device | str
) -> Iterator[_Block]:
    norms = all_norms(rows)
    size = block_rows or block_rows_within(4 * rows.n_checkpoints * rows.d_sketch)
    for start, stop in rows.blocks(size):
        weights = example_weights(norms[:, start:stop], rows.learning_rates, normalise)
        units = [_unit_rows(rows, t, start, stop, weights[t], device) for t in range(rows.n_checkpoints)]
        yield _block(start, units, torch.from_numpy(weights).to(device))


def _unit_rows(
    rows: SketchRows,
    checkpoint: int,
    start: int,
    stop: int,
    weights: Float[np.ndarray, " row"],
    device: torch.device | str,
) -> Float[Tensor, "row d_sketch"]:
    """float32 rows; one without a gradient is zero, whatever the store holds for it."""
    units = to_device(rows.unit_sketches(checkpoint, start, stop), torch.float32, device)
    empty = np.flatnonzero(weights == 0)
    if empty.size:
        units[torch.from_numpy(empty).to(device)] = 0.0
    return units


def _block(start: int, units: list[Float[Tensor, "row d_sketch"]], weights: Float[Tensor, "checkpoint row"]) -> _Block:
    scale = float(weights.max()) or 1.0
    screen_weights = (weights / scale).float()
    lengths = torch.stack([torch.linalg.vector_norm(u, dim=1) for u in units])
    return _Block(start, units, weights, scale, screen_weights, (lengths * screen_weights).T.contiguous())


class _Group:
    """Queries that are searched together, and the best rows found for them so far."""

    def __init__(
        self,
        queries: QuerySketches,
        part: slice,
        excluded: Int[np.ndarray, " all_queries"],
        learning_rates: Float[np.ndarray, " checkpoint"],
        normalise: Normalise,
        k: int,
        signs: tuple[int, ...],
        device: torch.device | str,
    ) -> None:
        on_grid = np.round(queries.unit[:, part].astype(np.float64) * _GRID) / _GRID
        self._units = torch.from_numpy(on_grid).to(device)
        weights = query_weights(queries.norms[:, part], learning_rates, normalise)
        self._weights = torch.from_numpy(weights).to(device)
        self._excluded = torch.from_numpy(excluded[part]).to(device)
        self.best = {sign: RunningBest(on_grid.shape[1], k, device) for sign in signs}
        self._prepare_screen()

    def _prepare_screen(self) -> None:
        """Weights are divided by each query's largest, so that no gradient is too large or small for float32."""
        largest = self._weights.amax(dim=0)
        self._scale = torch.where(largest > 0, largest, 1.0)
        weights = (self._weights / self._scale).float()
        self._screen_units = weights[..., None] * self._units.float()
        self._reach = _rounding(self._units) * self._units.norm(dim=2).float() * weights
        self._underflow = torch.where(largest > 0, _UNDERFLOW, 0.0).float()

    def see(self, block: _Block) -> None:
        """Take in the rows of a block."""
        candidates = torch.nonzero(self._may_enter(block).any(dim=1)).squeeze(1)
        if len(candidates) == 0:
            return
        scores = self._settle(block, candidates)
        indices = candidates + block.start
        excluded = self._excluded[:, None] == indices
        for sign, best in self.best.items():
            best.add((sign * scores).masked_fill_(excluded, -torch.inf), indices)

    def _may_enter(self, block: _Block) -> Bool[Tensor, "row query"]:
        """Rows that float32 cannot rule out, for any end. Ties with the k-th place lose: theirs is the higher row."""
        scores = self._screen(block)
        slack = torch.addmm(self._underflow, block.reach, self._reach)
        possible = torch.zeros_like(scores, dtype=torch.bool)
        for sign, best in self.best.items():
            floor = best.floor / (self._scale * block.scale)
            possible |= torch.add(slack, scores, alpha=sign) > (floor - floor.abs() * 2.0**-22).float()
        return possible

    def _screen(self, block: _Block) -> Float[Tensor, "row query"]:
        """Scores in float32, rows first: for few queries this order of the product is the faster one."""
        scores = torch.mm(block.units[0], self._screen_units[0].T).mul_(block.screen_weights[0][:, None])
        for t in range(1, len(block.units)):
            scores.addcmul_(torch.mm(block.units[t], self._screen_units[t].T), block.screen_weights[t][:, None])
        return scores

    def _settle(self, block: _Block, candidates: Int[Tensor, " row"]) -> Float[Tensor, "query row"]:
        """Scores in float64 of the rows left over, the same bits however rows and queries are grouped."""
        scores = torch.zeros(len(self._scale), len(candidates), dtype=torch.float64, device=candidates.device)
        for t, units in enumerate(block.units):
            dots = torch.mm(self._units[t], units[candidates].double().T)
            scores += dots * self._weights[t][:, None] * block.weights[t][candidates]
        return scores


def _rounding(units: Float[Tensor, "checkpoint query d_sketch"]) -> float:
    """Worst error of `_screen`, relative to sum_t a_t |u_t(q)| |u_t(x)| b_t (Higham 2002, section 3.1).

    A dot product of d terms errs by at most d units in the last place, each checkpoint's weights and sum by a
    few more. Where the user lets torch use TF32 or bfloat16, both factors are rounded first.
    """
    n_checkpoints, _, d_sketch = units.shape
    rounded_inputs = {"highest": 0.0, "high": 2.0**-10, "medium": 2.0**-7}[torch.get_float32_matmul_precision()]
    return 1.01 * (rounded_inputs + (d_sketch + 2 * n_checkpoints + 16) * 2.0**-24)
