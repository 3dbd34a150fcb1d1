"""Leverage: how far an example's gradient lies outside the directions that the rest of the data set shares.

With s the sketch of an example's gradient and C the mean of s s^T over the data set,

    l(x) = s^T (C + damping · mean(diag C) · I)^-1 s

is self-influence in units of the data set's own spread. A raw gradient norm follows loss and contrast; leverage
asks how few other examples push the model in this example's direction.

Two passes over the store: the first sums s s^T, the second solves L z = s with the Cholesky factor L of the damped
matrix and takes |z|². Memory is a few square matrices of the sketch's width and one block of rows.

Precision: a block's s^T s is a float32 product, added up and factorised in float64; the triangular solve is float32.
The error is about 1e-7 times the condition number, which damping bounds by width / damping; measured on decaying
spectra it stays below 1e-3 at the default. Checkpoints are scaled to mean norm 1 first, which cancels in the
result and keeps float32 in range.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float32, Float64
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cholesky, solve_triangular

from gradstore.errors import QueryError
from gradstore.sketch.counter import hash_words, key_of

DAMPING = 1e-3
"""Relative to the mean diagonal of C."""

JOINT_WIDTH = 6144
"""Widest joint sketch that is whitened as it is. Why so wide: see `joint_leverage`."""

_FOLD_SEED = key_of("gradstore joint leverage")
_BLOCK_BYTES = 1 << 26

Blocks = Callable[[], Iterator[Float32[np.ndarray, "row width"]]]
"""Rows in store order, a block at a time; opened once for each pass."""


class SketchRows(Protocol):
    """What leverage reads of a store."""

    @property
    def n_examples(self) -> int: ...

    @property
    def n_checkpoints(self) -> int: ...

    @property
    def d_sketch(self) -> int: ...

    def unit_sketches(self, checkpoint: int, start: int, stop: int) -> NDArray[np.float16]: ...

    def norms(self, checkpoint: int) -> NDArray[np.float32]: ...

    def blocks(self, rows: int = ...) -> Iterator[tuple[int, int]]: ...


def leverage(store: SketchRows, *, damping: float = DAMPING) -> Float64[np.ndarray, " example"]:
    """Leverage of every example, summed over checkpoints.

    l(x) = sum_t s_t^T (C_t + damping · mean(diag C_t) · I)^-1 s_t

    Args:
        store: sketches divided by exact norms, and those norms.
        damping: relative to the mean diagonal of C_t.

    Returns:
        One score >= 0 an example, without a unit. With no damping its mean is d_sketch times the number of
        checkpoints. A checkpoint whose gradients are all zero adds nothing.

    Raises:
        QueryError: negative damping; no damping where the gradients do not span the sketch; gradients that are
            not finite.

    Source: leverage scores of regression (Hoaglin & Welsch 1978), with gradients as the design matrix.
    """
    total = np.zeros(store.n_examples)
    for checkpoint in range(store.n_checkpoints):
        total += whitened_sq_norms(_scaled_to_mean_one(store, checkpoint), store.d_sketch, damping)
    return total


def unit_leverage(store: SketchRows, *, damping: float = DAMPING) -> Float64[np.ndarray, " example"]:
    """Leverage of the gradients' directions: every row is scaled to length 1 first. Otherwise as `leverage`.

    Blind to magnitude: it sees what `leverage` overlooks because its gradients are small. Rows are divided by the
    sketch's own length, which differs from the gradient's by a few percent and would only add noise.
    """
    total = np.zeros(store.n_examples)
    for checkpoint in range(store.n_checkpoints):
        total += whitened_sq_norms(_directions(store, checkpoint), store.d_sketch, damping)
    return total


def joint_leverage(
    store: SketchRows, *, damping: float = DAMPING, joint_width: int = JOINT_WIDTH
) -> Float64[np.ndarray, " example"]:
    """Leverage of all checkpoints' sketches side by side, each checkpoint scaled to mean norm 1.

    Otherwise as `leverage`.

    Args:
        store: as for `leverage`.
        damping: as for `leverage`.
        joint_width: sketches that are wider side by side are folded to this width, by a signed count sketch.
    """
    width = min(store.n_checkpoints * store.d_sketch, joint_width)
    return whitened_sq_norms(_side_by_side(store, width), width, damping)


def whitened_sq_norms(blocks: Blocks, width: int, damping: float) -> Float64[np.ndarray, " example"]:
    """r^T (C + damping · mean(diag C) · I)^-1 r of every row r, with C the mean of r r^T.

    Raises:
        QueryError: as `leverage`.
    """
    second_moment = _second_moment(blocks, width)
    if not second_moment.any():
        return np.concatenate([np.zeros(len(rows)) for rows in blocks()])
    factor = _damped_factor(second_moment, damping)
    return np.concatenate([_solved_sq_norms(factor, rows) for rows in blocks()])


def _second_moment(blocks: Blocks, width: int) -> Float64[np.ndarray, "width width"]:
    total, n_rows = np.zeros((width, width)), 0
    for rows in blocks():
        total += rows.T @ rows
        n_rows += len(rows)
    total /= n_rows
    return total


def _damped_factor(
    second_moment: Float64[np.ndarray, "width width"], damping: float
) -> Float32[np.ndarray, "width width"]:
    """Lower Cholesky factor of the damped matrix; overwrites its argument."""
    mean_diagonal = float(np.trace(second_moment)) / len(second_moment)
    if not np.isfinite(mean_diagonal) or damping < 0:
        raise QueryError(
            f"Leverage needs finite gradients and damping of at least 0; found a mean squared entry of "
            f"{mean_diagonal} and damping {damping}. Run gradstore verify on the store, or use damping {DAMPING}."
        )
    second_moment[np.diag_indices_from(second_moment)] += damping * mean_diagonal
    try:
        factor = cholesky(second_moment, lower=True, overwrite_a=True, check_finite=False)
    except LinAlgError as error:
        raise _singular(damping, len(second_moment)) from error
    if np.diag(factor).min() ** 2 < np.finfo(np.float32).eps * mean_diagonal:
        raise _singular(damping, len(second_moment))
    return factor.astype(np.float32)


def _singular(damping: float, width: int) -> QueryError:
    return QueryError(
        f"With damping {damping} the covariance of the gradients cannot be inverted: they do not span all {width} "
        f"dimensions of the sketch. Use damping of 1e-6 or more ({DAMPING} is the default)."
    )


def _solved_sq_norms(
    factor: Float32[np.ndarray, "width width"], rows: Float32[np.ndarray, "row width"]
) -> Float64[np.ndarray, " row"]:
    """|L^-1 r|² of every row; overwrites the rows."""
    solved = solve_triangular(factor, rows.T, lower=True, overwrite_b=True, check_finite=False)
    return np.asarray(np.square(solved, out=solved).sum(axis=0, dtype=np.float64))


def _scaled_to_mean_one(store: SketchRows, checkpoint: int) -> Blocks:
    """Sketches of one checkpoint times exact norm over mean norm."""
    scale = _relative_norms(store, checkpoint)

    def blocks() -> Iterator[Float32[np.ndarray, "row width"]]:
        for start, stop in _block_ranges(store, store.d_sketch):
            yield _unit_rows(store, checkpoint, start, stop) * scale[start:stop, None]

    return blocks


def _directions(store: SketchRows, checkpoint: int) -> Blocks:
    """Sketches of one checkpoint divided by their own length; a zero gradient stays zero."""

    def blocks() -> Iterator[Float32[np.ndarray, "row width"]]:
        for start, stop in _block_ranges(store, store.d_sketch):
            rows = _unit_rows(store, checkpoint, start, stop)
            lengths = np.linalg.norm(rows, axis=1, keepdims=True)
            yield np.divide(rows, lengths, out=rows, where=lengths > 0)

    return blocks


def _side_by_side(store: SketchRows, width: int) -> Blocks:
    """All checkpoints' scaled sketches in one row, column j of the whole added to column j mod width.

    Signs make the overlap a count sketch: unbiased, and only a rotation where nothing overlaps.
    """
    scales = [_relative_norms(store, checkpoint) for checkpoint in range(store.n_checkpoints)]
    signs = [_signs(checkpoint, store.d_sketch) for checkpoint in range(store.n_checkpoints)]

    def blocks() -> Iterator[Float32[np.ndarray, "row width"]]:
        for start, stop in _block_ranges(store, width):
            joint = np.zeros((stop - start, width), dtype=np.float32)
            for checkpoint, (scale, sign) in enumerate(zip(scales, signs, strict=True)):
                rows = _unit_rows(store, checkpoint, start, stop) * scale[start:stop, None] * sign
                _add_folded(joint, rows, checkpoint * store.d_sketch)
            yield joint

    return blocks


def _add_folded(
    joint: Float32[np.ndarray, "row width"], rows: Float32[np.ndarray, "row d_sketch"], offset: int
) -> None:
    """Add columns `offset`, `offset` + 1, … of the whole where they fall, a run without wrap-around at a time."""
    width, first = joint.shape[1], 0
    while first < rows.shape[1]:
        at = (offset + first) % width
        run = min(width - at, rows.shape[1] - first)
        joint[:, at : at + run] += rows[:, first : first + run]
        first += run


def _unit_rows(store: SketchRows, checkpoint: int, start: int, stop: int) -> Float32[np.ndarray, "row d_sketch"]:
    return store.unit_sketches(checkpoint, start, stop).astype(np.float32)


def _relative_norms(store: SketchRows, checkpoint: int) -> Float32[np.ndarray, " example"]:
    """Exact norms over their mean; zeros where all are zero."""
    norms = store.norms(checkpoint).astype(np.float64)
    mean = norms.mean()
    return (norms / mean if mean > 0 else norms).astype(np.float32)


def _signs(checkpoint: int, d_sketch: int) -> Float32[np.ndarray, " d_sketch"]:
    bits = hash_words(_FOLD_SEED, checkpoint, torch.arange(d_sketch)) & 1
    return (2 * bits - 1).numpy().astype(np.float32)


def _block_ranges(store: SketchRows, width: int) -> Iterator[tuple[int, int]]:
    """Blocks of at most 64 MiB of float32."""
    return store.blocks(max(64, min(4096, _BLOCK_BYTES // (4 * width))))
