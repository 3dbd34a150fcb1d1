"""Exact and near duplicates: examples that lie far closer to another than anything else does.

Other signals take a copy for ordinary: whatever it does to the model, another does too. Judged are the latents of all
checkpoints side by side, which one input gives and a nearly equal one hardly changes. An example's own tenth neighbour
is the measure, so that a dense region is not taken for copies; ten copies of one example are therefore the most that
are seen.

Neighbours are sought by a k-d tree on the six widest directions and measured on the 32 widest: N log N instead of N²,
and what nearly coincides does so in all of them. Memory: 128 bytes an example, and the tree.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.spatial import cKDTree

from gradstore.ranking.signals.base import Computation, Signal, Values

_SEARCHED = 6
_CANDIDATES, _NEIGHBOURS = 32, 10
_EXACT = 1e-5
"""Of the tenth neighbour's distance: nearer than this is rounding."""
_ROWS = 4096
Allowed = Callable[[Int64[np.ndarray, " row"], Int64[np.ndarray, "row near"]], Bool[np.ndarray, "row near"]]
"""(rows, their candidates) -> which of these count."""


def nearness(computation: Computation) -> Values:
    """log10 of the tenth neighbour's distance over the nearest's, 0 where they are alike and 5 for an exact copy."""
    return nearest_of(computation)


def nearest_of(computation: Computation, allowed: Allowed | None = None) -> Values:
    """The same for the nearest of those neighbours that are `allowed`; -inf where none of the 31 nearest is."""
    store = computation.store
    if store.n_examples < 3:
        return np.zeros(store.n_examples)
    directions = computation.widest_directions
    points = np.concatenate([directions.rows(start, stop) for start, stop in store.blocks()])
    tree = cKDTree(points[:, :_SEARCHED])
    parts = [_of_block(tree, points, start, allowed) for start in range(0, len(points), _ROWS)]
    return np.concatenate(parts)


def _of_block(
    tree: cKDTree, points: Float32[np.ndarray, "example width"], start: int, allowed: Allowed | None
) -> Float64[np.ndarray, " row"]:
    block = points[start : start + _ROWS]
    rows = np.arange(start, start + len(block))
    near: Int64[np.ndarray, "row near"] = np.asarray(
        tree.query(block[:, :_SEARCHED], k=min(_CANDIDATES, len(points)))[1]
    )
    itself = near == rows[:, None]
    distances = _distances(block, points[near])
    others = _sorted_others(distances, itself)
    tenth = others[:, min(_NEIGHBOURS, others.shape[1]) - 1]
    found = others[:, 0]
    if allowed is not None:
        found = np.where(allowed(rows, near) & ~itself, distances, np.inf).min(axis=1)
    nearest = np.maximum(found, _EXACT * tenth)
    ratio = np.divide(tenth, nearest, out=np.isfinite(found).astype(np.float64), where=(tenth > 0) & np.isfinite(found))
    with np.errstate(divide="ignore"):
        return np.asarray(np.log10(ratio))


def _distances(
    block: Float32[np.ndarray, "row width"], near: Float32[np.ndarray, "row near width"]
) -> Float64[np.ndarray, "row near"]:
    return np.asarray(np.linalg.norm((near - block[:, None]).astype(np.float64), axis=2))


def _sorted_others(
    distances: Float64[np.ndarray, "row near"], itself: Bool[np.ndarray, "row near"]
) -> Float64[np.ndarray, "row others"]:
    """One of each row left out: itself, or the farthest where many copies crowded it out."""
    ordered = np.sort(np.where(itself, -1.0, distances), axis=1)
    crowded = ~itself.any(axis=1, keepdims=True)
    return np.where(crowded, ordered[:, :-1], ordered[:, 1:])


NEAR_DUPLICATE = Signal(
    name="near_duplicate",
    title="nearness of a duplicate",
    unit="orders of magnitude",
    meaning="another example is nearly the same to the model",
    needs=("latents",),
    compute=nearness,
    passes=4,
    cost="four passes over the latents, N log N for the neighbours",
)
SIGNALS = (NEAR_DUPLICATE,)
