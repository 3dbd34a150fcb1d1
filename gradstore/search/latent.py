"""Neighbours in latent space: DKNN.

    importance(q, x) = 1 / (d(q, x) + eps)      d: Euclidean or cosine distance, see `gradstore.search.space`

Source: the label-free example importance of Crabbé & van der Schaar 2022 (arXiv:2203.01928). Its code uses 1/d²,
which is infinite for duplicates; eps keeps a duplicate's importance at 1/eps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32

from gradstore.search.filters import Exclude, Filter
from gradstore.search.nearest import nearest_points
from gradstore.search.neighbours import Neighbours
from gradstore.search.space import Metric, PointRows, Space

EPS = 1e-5


@dataclass(frozen=True, eq=False)
class LatentNeighbours(Neighbours):
    """Neighbours in latent space; `scores` are importances, `distances` those of the metric, nearest first."""

    distances: Float32[np.ndarray, "query k"]


def nearest_latents(
    rows: PointRows,
    queries: Float[np.ndarray, "*checkpoint query d_latent"],
    k: int,
    *,
    checkpoint: int | Sequence[int] = -1,
    metric: Metric = "l2",
    exclude: Exclude | None = None,
    filter: Filter | None = None,
    eps: float = EPS,
    block_rows: int | None = None,
    require_complete: bool = False,
    device: torch.device | str = "cpu",
) -> LatentNeighbours:
    """The k nearest examples of every query, in the latent space of one checkpoint or over several together.

    Args:
        rows: the store; of an unfinished one the examples that are done are searched.
        queries: latents of the queries at that checkpoint; with several checkpoints [checkpoint, query, d_latent].
        checkpoint: one, the last unless told otherwise, or several: then l2 is the root mean square of their
            distances, which makes sense where their latents are of one size, and cosine the mean.
        exclude: one row a query that it may not find, such as itself, or a list of them; -1 for none.
        filter: the rows that may be found.
        eps: added to each distance, in the latent's units.
        block_rows: rows read at once; the answer does not depend on it.

    Raises:
        QueryError: k that the store cannot answer, an unknown metric or checkpoint, NaN in a query.
        ShapeError: queries of another dimension than the stored latents.
        StoreCorruptError: latents that are not finite numbers.
        StoreIncompleteError: no example is done yet, or not all and `require_complete`.
    """
    checkpoints = [checkpoint] if isinstance(checkpoint, int) else checkpoint
    space = Space.of(rows, "latent", metric, checkpoints, require_complete=require_complete)
    points = space.queries(queries[None] if queries.ndim == 2 else queries, device)
    indices, found = nearest_points(space, points, k, exclude=exclude, filter=filter, block_rows=block_rows)
    return LatentNeighbours(indices, (1.0 / (found + eps)).astype(np.float32), found.astype(np.float32))
