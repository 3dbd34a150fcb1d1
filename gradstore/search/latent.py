"""Neighbours in latent space: DKNN, and the distance to a reference set.

    importance(q, x) = 1 / (|q - x| + eps)

Source: the label-free example importance of Crabbé & van der Schaar 2022 (arXiv:2203.01928). Its code uses 1/d²,
which is infinite for duplicates; eps keeps a duplicate's importance at 1/eps.

Why distances are computed twice: |q|² + |x|² - 2 <q, x> is one matrix product, but for near neighbours the terms
cancel. So the product only rules rows out, with its worst error added; whatever may be among the k nearest is
measured again by differences, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from gradstore.errors import QueryError, ShapeError, StoreCorruptError
from gradstore.search.checks import check_k, excluded_rows
from gradstore.search.neighbours import Neighbours
from gradstore.search.rows import BLOCK_ROWS, LatentRows, to_device
from gradstore.search.running import RunningBest

EPS = 1e-5
_GROUP = 256
_DIFFERENCES = 1 << 22  # float64 numbers held at once while distances are measured again: 32 MiB


@dataclass(frozen=True, eq=False)
class LatentNeighbours(Neighbours):
    """Neighbours in latent space; `scores` are importances, `distances` the Euclidean distances, nearest first."""

    distances: Float32[np.ndarray, "query k"]


def nearest_latents(
    rows: LatentRows,
    queries: Float[np.ndarray, "query d_latent"],
    k: int,
    *,
    checkpoint: int = -1,
    exclude: Sequence[int] | None = None,
    eps: float = EPS,
    block_rows: int = BLOCK_ROWS,
    device: torch.device | str = "cpu",
) -> LatentNeighbours:
    """The k nearest examples of every query at one checkpoint (the last unless told otherwise).

    Args:
        rows: the store.
        queries: latents of the queries at that checkpoint.
        exclude: one row a query that it may not find, such as itself; -1 for none.
        eps: added to each distance, in the latent's units.
        block_rows: rows a block; the answer does not depend on it.

    Raises:
        QueryError: k that the store cannot answer.
        ShapeError: queries of another dimension than the stored latents.
        StoreCorruptError: latents that are not finite numbers.
    """
    excluded = excluded_rows(exclude, len(queries))
    check_k(k, rows.n_examples, excluding=bool((excluded >= 0).any()))
    points = torch.from_numpy(queries.astype(np.float64)).to(device)
    hidden = torch.from_numpy(excluded).to(device)
    best = [RunningBest(len(part), k, device) for part in torch.split(points, _GROUP)]
    for start, block in _latent_blocks(rows, checkpoint, block_rows, device):
        _check_dimension(points, block)
        for part, hide, nearest in zip(torch.split(points, _GROUP), torch.split(hidden, _GROUP), best, strict=True):
            _see(part, block, hide - start, start, nearest)
    return _with_importance(best, eps)


def _with_importance(best: list[RunningBest], eps: float) -> LatentNeighbours:
    """From scores that are minus the squared distance."""
    indices = torch.cat([part.indices for part in best]).cpu().numpy()
    distances = torch.cat([part.scores for part in best]).neg().sqrt().cpu().numpy()
    return LatentNeighbours(indices, (1.0 / (distances + eps)).astype(np.float32), distances.astype(np.float32))


def _latent_blocks(
    rows: LatentRows, checkpoint: int, block_rows: int, device: torch.device | str
) -> Iterator[tuple[int, Float[Tensor, "row d_latent"]]]:
    for start, stop in rows.blocks(block_rows):
        block = to_device(rows.latents(range(rows.n_checkpoints)[checkpoint], start, stop), torch.float64, device)
        if not torch.isfinite(block).all():
            raise StoreCorruptError(
                f"Latents of rows {start} to {stop - 1} are not all finite numbers; a store never holds such rows. "
                "Run: gradstore verify STORE"
            )
        yield start, block


def _check_dimension(queries: Float[Tensor, "query d"], block: Float[Tensor, "row d_latent"]) -> None:
    if queries.shape[1] != block.shape[1]:
        raise ShapeError(
            f"The queries' latents have {queries.shape[1]} dimensions; the store's have {block.shape[1]}. "
            "Encode them with the store's own model."
        )


def _see(
    queries: Float[Tensor, "query d"],
    block: Float[Tensor, "row d"],
    hidden: Int[Tensor, " query"],
    start: int,
    nearest: RunningBest,
) -> None:
    """Add a block's rows to what was found; `hidden` are block rows that must not be (out of range: none)."""
    usable = torch.arange(len(block), device=block.device) != hidden[:, None]
    possible = _may_enter(queries, block, usable, nearest)
    candidates = torch.nonzero(possible.any(dim=0)).squeeze(1)
    if len(candidates):
        squares = _sq_distances_by_difference(queries, block[candidates], possible[:, candidates])
        nearest.add(-squares, candidates + start)


def _may_enter(
    queries: Float[Tensor, "query d"],
    block: Float[Tensor, "row d"],
    usable: Bool[Tensor, "query row"],
    nearest: RunningBest,
) -> Bool[Tensor, "query row"]:
    """Rows that the matrix product cannot rule out, given what was found before and the block's own k best."""
    reach = torch.linalg.vector_norm(queries, dim=1)[:, None] + torch.linalg.vector_norm(block, dim=1)
    squares = queries.square().sum(dim=1)[:, None] + block.square().sum(dim=1) - 2.0 * (queries @ block.T)
    slack = (block.shape[1] + 16) * 2.0**-52 * reach.square()
    bound = -nearest.floor[:, None]
    if len(block) >= nearest.k:
        pessimistic = torch.where(usable, squares + slack, torch.inf)
        bound = torch.minimum(bound, torch.kthvalue(pessimistic, nearest.k, dim=1).values[:, None])
    return usable.logical_and(squares - slack <= bound)


def _sq_distances_by_difference(
    queries: Float[Tensor, "query d"], block: Float[Tensor, "row d"], wanted: Bool[Tensor, "query row"]
) -> Float[Tensor, "query row"]:
    """|q - x|² of the wanted pairs, infinity elsewhere."""
    squares = torch.full(wanted.shape, torch.inf, dtype=torch.float64, device=block.device)
    for pairs in torch.split(torch.nonzero(wanted), max(1, _DIFFERENCES // block.shape[1])):
        query, row = pairs.unbind(dim=1)
        squares[query, row] = (queries[query] - block[row]).square_().sum(dim=1)
    return squares


def knn_distance(
    blocks: Callable[[], Iterator[tuple[int, Float[np.ndarray, "row d"]]]],
    reference: Float[np.ndarray, "reference d"],
    k: int,
    reference_rows: Int[np.ndarray, " reference"],
    *,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    device: torch.device | str = "cpu",
) -> Float32[np.ndarray, " example"]:
    """Mean distance of every example to its k nearest in a reference set; linear in the number of examples.

    Args:
        blocks: gives (first row, rows) in ascending order, covering every example.
        reference: m chosen examples.
        reference_rows: which examples those are: none counts itself as a neighbour.
        metric: `euclidean`, or `cosine` for rows that have length 1 or 0: 1 - <x, y>, in 0..2. With
            `gradstore.search.side_by_side` that is the cosine distance averaged over checkpoints.

    Raises:
        QueryError: fewer than k + 1 reference examples (one may be the example itself).
        ShapeError: not one row number a reference example.

    Source: Sun et al. 2022 (deep nearest neighbours, arXiv:2204.06507) use the k-th distance to a subset; the mean
    of k is less noisy.
    """
    _check_reference(reference, k, reference_rows)
    dtype = torch.float64 if metric == "euclidean" else torch.float32
    targets = to_device(reference, dtype, device)
    measure = _mean_euclidean if metric == "euclidean" else _mean_cosine
    means = []
    for start, rows in blocks():
        itself = _itself(reference_rows - start, len(rows), targets)
        means.append(measure(to_device(rows, dtype, device), targets, itself, k).float().cpu().numpy())
    return np.concatenate(means)


def _check_reference(
    reference: Float[np.ndarray, "reference d"], k: int, reference_rows: Int[np.ndarray, " rows"]
) -> None:
    if len(reference_rows) != len(reference):
        raise ShapeError(f"{len(reference)} reference examples but {len(reference_rows)} row numbers; give one each.")
    if not 1 <= k < len(reference):
        raise QueryError(
            f"k={k} neighbours cannot be found among {len(reference)} reference examples, of which one may be the "
            f"example itself; ask for 1 to {len(reference) - 1}."
        )


def _itself(
    positions: Int[np.ndarray, " reference"], n_rows: int, targets: Float[Tensor, "reference d"]
) -> tuple[Int[Tensor, " own"], Int[Tensor, " own"]]:
    """(row, reference) pairs of a block that are the same example."""
    inside = np.flatnonzero((positions >= 0) & (positions < n_rows))
    rows = torch.from_numpy(positions[inside].astype(np.int64)).to(targets.device)
    return rows, torch.from_numpy(inside).to(targets.device)


def _mean_cosine(
    rows: Float[Tensor, "row d"],
    targets: Float[Tensor, "reference d"],
    itself: tuple[Int[Tensor, " own"], Int[Tensor, " own"]],
    k: int,
) -> Float[Tensor, " row"]:
    cosines = rows @ targets.T
    cosines[itself] = -torch.inf
    return (1.0 - torch.topk(cosines, k, dim=1).values).clamp_(min=0.0).mean(dim=1)


def _mean_euclidean(
    rows: Float[Tensor, "row d"],
    targets: Float[Tensor, "reference d"],
    itself: tuple[Int[Tensor, " own"], Int[Tensor, " own"]],
    k: int,
) -> Float[Tensor, " row"]:
    """The matrix product chooses the neighbours, differences measure them."""
    squares = targets.square().sum(dim=1) - 2.0 * (rows @ targets.T)  # |x|² is the same for all of a row's neighbours
    squares[itself] = torch.inf
    nearest = torch.topk(squares, k, dim=1, largest=False).indices
    step = max(1, _DIFFERENCES // (k * rows.shape[1]))
    parts = zip(torch.split(rows, step), torch.split(nearest, step), strict=True)
    return torch.cat([(part[:, None] - targets[near]).square().sum(dim=2).sqrt().mean(dim=1) for part, near in parts])
