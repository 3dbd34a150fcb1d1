"""The nearest points of a few queries, exactly: one pass over the store, in float64.

Why distances are computed twice: |q|² + |x|² - 2 <q, x> is one matrix product, but for near neighbours the terms
cancel. So the product only rules rows out, with its worst error added; whatever may be among the k nearest is
measured again by differences.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from gradstore.errors import QueryError
from gradstore.search.checks import check_k_within
from gradstore.search.filters import Exclude, Filter, excluded_lists
from gradstore.search.running import RunningBest
from gradstore.search.space import Space

_GROUP = 256
_DIFFERENCES = 1 << 22  # float64 numbers held at once while distances are measured again: 32 MiB


def nearest_points(
    space: Space,
    queries: Float64[Tensor, "query width"],
    k: int,
    *,
    exclude: Exclude | None = None,
    filter: Filter | None = None,
    block_rows: int | None = None,
) -> tuple[Int64[np.ndarray, "query k"], Float64[np.ndarray, "query k"]]:
    """Rows of the k nearest points and their distances, nearest first, the lower row first among equals.

    Args:
        queries: points of that space, on the device to compute on.
        exclude: rows that each query may not find, such as itself.
        filter: rows that any may find.
        block_rows: rows read at once; the answer does not depend on it.

    Raises:
        QueryError: k that the rows cannot answer, or a filter of another store.
        StoreCorruptError: points that are not finite numbers.
    """
    hidden = excluded_lists(exclude, len(queries))
    allowed = _allowed(space, filter)
    _check_k(k, space, allowed, hidden, filter)
    groups = [slice(start, start + _GROUP) for start in range(0, len(queries), _GROUP)]
    best = [RunningBest(len(queries[group]), k, queries.device) for group in groups]
    for numbers, block in _blocks(space, allowed, block_rows, queries.device):
        for group, nearest in zip(groups, best, strict=True):
            _see(space, queries[group], block, _usable(hidden[group], numbers), numbers, nearest)
    indices = torch.cat([part.indices for part in best]).cpu().numpy()
    squares = torch.cat([part.scores for part in best]).neg().clamp_(min=0.0)
    return indices, space.distances(squares).cpu().numpy()


def _allowed(space: Space, filter: Filter | None) -> Bool[np.ndarray, " example"] | None:
    if filter is None:
        return None
    if len(filter.allowed) != space.n_examples:
        raise QueryError(
            f"The filter is for {len(filter.allowed)} examples; the store has {space.n_examples}. "
            "Make it of this store."
        )
    allowed: Bool[np.ndarray, " example"] = filter.allowed & space.found.done()
    return allowed


def _check_k(
    k: int,
    space: Space,
    allowed: Bool[np.ndarray, " example"] | None,
    hidden: list[Int64[np.ndarray, " row"]],
    filter: Filter | None,
) -> None:
    """Refuse a k that some query cannot have; says what made its rows so few."""
    done = space.found.done() if allowed is None else allowed
    inside = (rows[(rows >= 0) & (rows < len(done))] for rows in hidden)
    most = max((int(done[rows].sum()) for rows in inside), default=0)
    left, other = int(done.sum()) - most, "other " if most else ""
    if filter is not None:
        check_k_within(k, left, f"the {left} {other}examples that {filter.what} leaves")
    elif not space.coverage.is_complete:
        check_k_within(k, left, f"the {left} {other}examples that are done so far")
    else:
        check_k_within(k, left, f"the store's {left} {other}examples")


def _blocks(
    space: Space, allowed: Bool[np.ndarray, " example"] | None, block_rows: int | None, device: torch.device
) -> Iterator[tuple[Int64[np.ndarray, " row"], Float64[Tensor, "row width"]]]:
    """Row numbers and points of all that may be found, in order; a block without any is not read."""
    for start, stop in space.blocks(block_rows):
        numbers = np.arange(start, stop) if allowed is None else start + np.flatnonzero(allowed[start:stop])
        if not numbers.size:
            continue
        points = space.points(start, stop, device=device)
        yield numbers, points if len(numbers) == len(points) else points[torch.from_numpy(numbers - start).to(device)]


def _usable(
    hidden: list[Int64[np.ndarray, " row"]], numbers: Int64[np.ndarray, " row"]
) -> Bool[np.ndarray, "query row"]:
    """Which of a block's rows each query may find."""
    usable = np.ones((len(hidden), len(numbers)), dtype=np.bool_)
    owners = np.repeat(np.arange(len(hidden)), [len(rows) for rows in hidden])
    rows = np.concatenate([np.empty(0, np.int64), *hidden])
    places = np.searchsorted(numbers, rows)
    there = (places < len(numbers)) & (numbers[np.minimum(places, len(numbers) - 1)] == rows)
    usable[owners[there], places[there]] = False
    return usable


def _see(
    space: Space,
    queries: Float64[Tensor, "query width"],
    block: Float64[Tensor, "row width"],
    usable: Bool[np.ndarray, "query row"],
    numbers: Int64[np.ndarray, " row"],
    nearest: RunningBest,
) -> None:
    """Add a block's rows to what was found."""
    possible = _may_enter(queries, block, torch.from_numpy(usable).to(block.device), nearest, space.grain)
    candidates = torch.nonzero(possible.any(dim=0)).squeeze(1)
    if len(candidates):
        squares = _sq_distances_of(space, queries, block[candidates], possible[:, candidates])
        nearest.add(-squares, torch.from_numpy(numbers).to(block.device)[candidates])


def _may_enter(
    queries: Float[Tensor, "query d"],
    block: Float[Tensor, "row d"],
    usable: Bool[Tensor, "query row"],
    nearest: RunningBest,
    grain: float,
) -> Bool[Tensor, "query row"]:
    """Rows that the matrix product cannot rule out, given what was found before and the block's own k best."""
    reach = torch.linalg.vector_norm(queries, dim=1)[:, None] + torch.linalg.vector_norm(block, dim=1)
    squares = queries.square().sum(dim=1)[:, None] + block.square().sum(dim=1) - 2.0 * (queries @ block.T)
    slack = (block.shape[1] + 16) * 2.0**-52 * reach.square() + grain
    bound = -nearest.floor[:, None]
    if len(block) >= nearest.k:
        pessimistic = torch.where(usable, squares + slack, torch.inf)
        bound = torch.minimum(bound, torch.kthvalue(pessimistic, nearest.k, dim=1).values[:, None])
    return usable.logical_and(squares - slack <= bound)


def _sq_distances_of(
    space: Space, queries: Float[Tensor, "query d"], block: Float[Tensor, "row d"], wanted: Bool[Tensor, "query row"]
) -> Float[Tensor, "query row"]:
    """|q - x|² of the wanted pairs, infinity elsewhere."""
    squares = torch.full(wanted.shape, torch.inf, dtype=torch.float64, device=block.device)
    for pairs in torch.split(torch.nonzero(wanted), max(1, _DIFFERENCES // block.shape[1])):
        query, row = pairs.unbind(dim=1)
        squares[query, row] = space.sq_distances(queries[query], block[row])
    return squares
