"""Robust leverage: how far an example's gradient lies outside the directions that trusted examples share.

`gradstore.influence.leverage` lets every example have its part in C. Bad examples that come in a kind then make room
for themselves: C spans their directions, and their leverage is ordinary. Here C is the mean of s s^T over trusted
examples alone, and an example is measured against the others:

    l(x) = s^T (C_x + damping · mean(diag C) · I)^-1 s,    C_x the mean over the trusted without x itself

For a trusted example that is q / (1 - q/n), with q what it has with itself in C and n their number (Sherman and
Morrison 1950); for any other it is q. So trusted and others stand on one scale, and none is suspected because it was
left out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32, Float64
from scipy.linalg import solve_triangular

from gradstore.errors import QueryError, ShapeError
from gradstore.influence.leverage import SketchRows, directions, scaled_to_mean_one
from gradstore.influence.whitening import DAMPING, Blocks, damped_factor, solved_sq_norms

_FEW = 4
"""Below so many trusted examples a dimension an example is a large part of C, and 1 - q/n is small: float64 then."""


def robust_leverage(
    store: SketchRows, trusted: Bool[np.ndarray, " example"], *, damping: float = DAMPING
) -> Float64[np.ndarray, " example"]:
    """Leverage of every example against the trusted others, summed over checkpoints.

    Args:
        store: sketches divided by exact norms, and those norms.
        trusted: whose gradients C is made of.
        damping: relative to the mean diagonal of C; above 0.

    Returns:
        One score >= 0 an example, without a unit.

    Raises:
        ShapeError: not one truth value an example.
        QueryError: nobody is trusted; damping that is not above 0; gradients that are not finite.
    """
    return _summed(store, trusted, damping, unit=False)


def robust_unit_leverage(
    store: SketchRows, trusted: Bool[np.ndarray, " example"], *, damping: float = DAMPING
) -> Float64[np.ndarray, " example"]:
    """The same of the gradients' directions: every row is scaled to length 1 first. Otherwise as `robust_leverage`."""
    return _summed(store, trusted, damping, unit=True)


def held_out_sq_norms(
    blocks: Blocks, trusted: Bool[np.ndarray, " row"], width: int, damping: float
) -> Float64[np.ndarray, " row"]:
    """r^T (C_r + damping · mean(diag C) · I)^-1 r of every row r, C_r the mean over the trusted rows other than r.

    Args:
        blocks: the rows in order; their blocks may be overwritten.
        trusted: which rows C is made of.
        width: how long a row is.
        damping: relative to the mean diagonal of C; above 0.

    Returns:
        One number >= 0 a row, without a unit. Where all trusted rows are zero, C is made of all rows.

    Raises: as for `robust_leverage`.
    """
    n = int(trusted.sum())
    if n == 0 or not damping > 0:
        raise QueryError(f"Robust leverage needs trusted examples and damping above 0; found {n} and {damping}.")
    factor = damped_factor(_only(blocks, trusted), width, damping)
    if factor is None:  # all trusted rows are zero: what is not stands against everyone
        return (
            np.zeros(len(trusted))
            if trusted.all()
            else held_out_sq_norms(blocks, np.ones_like(trusted), width, damping)
        )
    precise = n < _FEW * width
    with_itself = np.concatenate([_sq_norms(factor, rows, precise=precise) for rows in blocks()])
    share = np.clip(with_itself / n, 0.0, 1.0 - np.finfo(np.float32).eps)
    return np.where(trusted, n * share / (1.0 - share), with_itself)


def _summed(
    store: SketchRows, trusted: Bool[np.ndarray, " example"], damping: float, *, unit: bool
) -> Float64[np.ndarray, " example"]:
    if trusted.shape != (store.n_examples,):
        raise ShapeError(f"trusted has shape {trusted.shape}; the store has {store.n_examples} examples.")
    rows_of = directions if unit else scaled_to_mean_one
    total = np.zeros(store.n_examples)
    for checkpoint in range(store.n_checkpoints):
        total += held_out_sq_norms(rows_of(store, checkpoint), trusted, store.d_sketch, damping)
    return total


def _only(blocks: Blocks, chosen: Bool[np.ndarray, " row"]) -> Blocks:
    """The chosen rows of every block that has any."""

    def filtered() -> Iterator[Float32[np.ndarray, "row width"]]:
        start = 0
        for rows in blocks():
            kept = chosen[start : start + len(rows)]
            start += len(rows)
            if kept.any():
                yield rows[kept]

    return filtered


def _sq_norms(
    factor: Float64[np.ndarray, "width width"], rows: Float32[np.ndarray, "row width"], *, precise: bool
) -> Float64[np.ndarray, " row"]:
    if not precise:
        return solved_sq_norms(factor.astype(np.float32), rows)
    solved = solve_triangular(factor, rows.T.astype(np.float64), lower=True, overwrite_b=True, check_finite=False)
    return np.asarray(np.square(solved).sum(axis=0))
