"""How far every example is from a reference set: the mean distance to its k nearest there.

Linear in the number of examples, unlike the graph of all nearest neighbours (`gradstore.search.graph`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from gradstore.errors import QueryError, ShapeError
from gradstore.search.rows import to_device

_DIFFERENCES = 1 << 22  # float64 numbers held at once while distances are measured: 32 MiB


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
