"""What a unit of work hands over, as the numbers of its shard's arrays.

Each array keeps a shard as one file of little-endian rows, the last shard filled up with what looks missing. How they
are read: `gradstore.store.row_access`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from gradstore.errors import ShapeError, TaskError
from gradstore.store.division import divide_by_norms
from gradstore.store.kinds import (
    DRAW_NORMS,
    LATENTS,
    LAYER_NORMS,
    LOSSES,
    NORMS,
    PREDICTIONS,
    SCALES,
    SKETCHES,
    Kind,
)
from gradstore.store.layout import ArrayLayout, arrays
from gradstore.store.manifest import Manifest
from gradstore.store.quantised import quantised, scales_of

Chunks = dict[ArrayLayout, NDArray[Any]]
"""The content of a shard's files: [R, …] each, in the store's dtype."""

_SHOWN_IDS = 5
_CHECKED_ROWS = 512


@dataclass(frozen=True)
class SetRows:
    """Gradients of examples with respect to one set of parameters."""

    sketches: NDArray[np.float32]
    """[n, k], not normalised"""
    sq_norms: NDArray[np.float64]
    """[n], exact squared gradient norms"""
    layer_sq_norms: NDArray[np.float64] | None = None
    """[n, L], their shares by layer; needed where the store keeps layer norms"""
    draw_sq_norms: NDArray[np.float64] | None = None
    """[n], mean over the draws of each draw's squared norm; needed where there are several draws"""


@dataclass(frozen=True)
class ShardRows:
    """Examples at one checkpoint, as a unit of work hands them to the store: a whole shard, or a part of it."""

    sets: Mapping[str, SetRows]
    """by the names of the store's sets of parameters"""
    losses: NDArray[np.float32]
    """[n]"""
    latents: NDArray[np.float32]
    """[n, d]"""
    predictions: NDArray[np.float32] | None = None
    """[n, n_classes], log-probabilities; needed where the store keeps predictions"""

    def __len__(self) -> int:
        return len(self.losses)


def encode(parts: Iterable[ShardRows], manifest: Manifest, n_rows: int) -> Chunks:
    """The chunks of a shard: array -> [R, …] in the store's dtype, rows from n on missing.

    Sketch rows become s / |g|, so that float16 neither overflows nor underflows; a row whose norm is 0 (as float32)
    becomes 0. The quotient is computed in float64 and rounded once. A log-probability that float16 does not hold
    becomes the lowest that it does. Parts are taken in one by one: no float32 copy of the shard is ever in memory.

    Raises:
        ShapeError: `parts` are not n_rows of what the manifest describes.
    """
    chunks = {array: _missing_rows(array, manifest) for array in arrays(manifest)}
    done = 0
    for part in parts:
        size = len(part)
        _check_shapes(part, manifest)
        if done + size > n_rows:
            raise ShapeError(f"A shard of {n_rows} examples was handed over with {done + size}.")
        _encode_part(part, {array: chunk[done : done + size] for array, chunk in chunks.items()})
        done += size
    if done != n_rows:
        raise ShapeError(f"A shard of {n_rows} examples was handed over with {done}.")
    return chunks


def _encode_part(rows: ShardRows, chunks: Chunks) -> None:
    with np.errstate(over="ignore", invalid="ignore"):  # what that gives is refused by name, in check_finite
        for array, chunk in chunks.items():
            if array.kind is SKETCHES and chunk.dtype != np.int8:
                found = _set_of(rows, array)
                divide_by_norms(found.sketches, _norms(found), chunk)
            else:
                chunk[:] = _values(rows, array)


def _values(rows: ShardRows, array: ArrayLayout) -> NDArray[Any]:
    """What an array holds of these rows, but for sketches in floating point; not yet rounded, but for int8."""
    if array.kind is PREDICTIONS:
        return np.asarray(np.maximum(np.asarray(rows.predictions), np.finfo(array.dtype).min))
    if array.kind in _SHARED:
        return np.asarray(getattr(rows, array.kind.name))
    if array.kind in (SKETCHES, SCALES):
        units = _units(_set_of(rows, array))
        scales = scales_of(units)
        return scales if array.kind is SCALES else quantised(units, scales)
    squares = getattr(_set_of(rows, array), _SQUARES[array.kind])
    return np.asarray(np.sqrt(np.asarray(squares, dtype=np.float64)))


_SHARED = (LOSSES, LATENTS)
_SQUARES = {NORMS: "sq_norms", LAYER_NORMS: "layer_sq_norms", DRAW_NORMS: "draw_sq_norms"}
_FIELDS = {SKETCHES: "sketches", **_SQUARES, LOSSES: "losses", LATENTS: "latents", PREDICTIONS: "predictions"}


def _set_of(rows: ShardRows, array: ArrayLayout) -> SetRows:
    assert array.parameters is not None
    return rows.sets[array.parameters]


def _units(rows: SetRows) -> NDArray[np.float64]:
    units = np.empty(rows.sketches.shape, dtype=np.float64)
    divide_by_norms(rows.sketches, _norms(rows), units)
    return units


def _norms(rows: SetRows) -> NDArray[np.float64]:
    return np.sqrt(np.asarray(rows.sq_norms, dtype=np.float64))


def check_finite(chunks: Chunks, n_rows: int, checkpoint: int, ids: Callable[[], Sequence[str]]) -> None:
    """Refuse NaN and infinity in the first `n_rows`; `ids` names those rows and is called only then.

    Raises:
        TaskError: names the quantity and the examples.
    """
    for array in sorted(chunks, key=lambda array: _BLAMED.index(array.kind)):
        bad = _not_finite(chunks[array][:n_rows])
        if bad.size:
            examples = ids()
            shown = ", ".join(repr(examples[row]) for row in bad[:_SHOWN_IDS])
            raise TaskError(
                f"At checkpoint {checkpoint} the {_WORDS[array.kind]} of {bad.size} of {n_rows} examples is not "
                f"finite: {shown}{', …' if bad.size > _SHOWN_IDS else ''}. A store holds finite numbers only. "
                "Look at these examples, or leave this checkpoint out: training may have diverged."
            )


_WORDS = {
    LOSSES: "loss",
    NORMS: "gradient norm",
    LAYER_NORMS: "gradient norm by layer",
    DRAW_NORMS: "gradient norm over the draws",
    SKETCHES: "sketch / norm",
    SCALES: "sketch / norm",
    LATENTS: "latent",
    PREDICTIONS: "log-probability",
}
_BLAMED: list[Kind] = list(_WORDS)  # what others are computed from comes first


def _not_finite(rows: Float[np.ndarray, "row ..."]) -> Int[np.ndarray, " bad"]:
    """Numbers of the rows that hold NaN or infinity; a few rows at a time, so that no mask of a whole shard is held."""
    pieces = [rows[start : start + _CHECKED_ROWS] for start in range(0, len(rows), _CHECKED_ROWS)]
    return np.flatnonzero(np.concatenate([~_is_finite(p).reshape(len(p), -1).all(axis=1) for p in pieces]))


def _is_finite(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Of float16 by its bits: numpy widens it, number by number."""
    if values.dtype == np.float16:
        return np.asarray((values.view(np.uint16) & 0x7C00) != 0x7C00, dtype=np.bool_)
    return np.asarray(np.isfinite(values))


def _check_shapes(rows: ShardRows, manifest: Manifest) -> None:
    """Every array's part has its rows and width; ShapeError lists those that have not."""
    if set(rows.sets) != set(manifest.parameter_sets):
        raise ShapeError(
            f"A shard was handed over with gradients of {', '.join(rows.sets) or 'nothing'}; the store holds those of "
            f"{', '.join(manifest.parameter_sets)}."
        )
    wrong = []
    for array in arrays(manifest):
        if array.kind is SCALES:  # follows from the sketches
            continue
        of = rows if array.parameters is None else rows.sets[array.parameters]
        field, expected = _FIELDS[array.kind], (len(rows), *array.row_shape)
        found = getattr(of, field)
        if found is None or np.shape(found) != expected:
            wrong.append(f"{field} {None if found is None else np.shape(found)} instead of {expected}")
    if wrong:
        raise ShapeError(f"{len(rows)} examples of a shard were handed over with {'; '.join(wrong)}.")


def _missing_rows(array: ArrayLayout, manifest: Manifest) -> NDArray[Any]:
    return np.full((manifest.shard_rows, *array.row_shape), array.missing, dtype=array.dtype)
