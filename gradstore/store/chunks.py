"""The rows of a shard as bytes, and bytes as rows.

Each array keeps a shard in one raw file of little-endian rows, the last shard filled up with NaN.

Why two ways of reading: a range of rows is read by seek and read, which leaves nothing mapped, so that a pass over a
store of any size stays at the size of one block; scattered rows are gathered through a map that is opened for the
call and released with it (35-100 times faster than reading whole shards, measured). A search, which looks at every
row once, maps a shard at a time as well.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from gradstore.errors import ShapeError, StoreCorruptError, TaskError
from gradstore.store.layout import (
    DRAW_NORMS,
    LATENTS,
    LAYER_NORMS,
    LOSSES,
    NORMS,
    SKETCHES,
    ArrayLayout,
    Kind,
    arrays,
    split_at_shards,
)
from gradstore.store.manifest import Manifest

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

    def __len__(self) -> int:
        return len(self.losses)


def encode(parts: Iterable[ShardRows], manifest: Manifest, n_rows: int) -> Chunks:
    """The chunks of a shard: array -> [R, …] in the store's dtype, rows from n on NaN.

    Sketch rows become s / |g|, so that float16 neither overflows nor underflows; a row whose norm is 0 (as float32)
    becomes 0. The quotient is computed in float64 and rounded once. Parts are taken in one by one: no float32 copy of
    the shard is ever in memory.

    Raises:
        ShapeError: `parts` are not n_rows of what the manifest describes.
    """
    chunks = {array: _filled_with_nan(array, manifest) for array in arrays(manifest)}
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
            if array.kind is SKETCHES:
                _encode_sketches(_set_of(rows, array), chunk)
            else:
                chunk[:] = _values(rows, array)


def _values(rows: ShardRows, array: ArrayLayout) -> NDArray[Any]:
    """What an array holds of these rows, but for sketches, in float32 or float64."""
    if array.kind in _SHARED:
        return np.asarray(getattr(rows, array.kind.name))
    squares = getattr(_set_of(rows, array), _SQUARES[array.kind])
    return np.asarray(np.sqrt(np.asarray(squares, dtype=np.float64)))


_SHARED = (LOSSES, LATENTS)
_SQUARES = {NORMS: "sq_norms", LAYER_NORMS: "layer_sq_norms", DRAW_NORMS: "draw_sq_norms"}
_FIELDS = {SKETCHES: "sketches", **_SQUARES, LOSSES: "losses", LATENTS: "latents"}


def _set_of(rows: ShardRows, array: ArrayLayout) -> SetRows:
    assert array.parameters is not None
    return rows.sets[array.parameters]


def _encode_sketches(rows: SetRows, out: NDArray[np.float16]) -> None:
    norms = np.sqrt(np.asarray(rows.sq_norms, dtype=np.float64))
    out[:] = 0
    # Casting inside the ufunc works in buffers of a few thousand numbers: no float64 copy of the shard.
    has_norm = norms.astype(np.float32) != 0
    np.divide(rows.sketches, norms[:, None], out=out, where=has_norm[:, None], casting="same_kind")


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
    LATENTS: "latent",
}
_BLAMED: list[Kind] = list(_WORDS)  # what others are computed from comes first


def _not_finite(rows: Float[np.ndarray, "row ..."]) -> Int[np.ndarray, " bad"]:
    """Numbers of the rows that hold NaN or infinity; a few rows at a time, so that no mask of a whole shard is held."""
    pieces = [rows[start : start + _CHECKED_ROWS] for start in range(0, len(rows), _CHECKED_ROWS)]
    return np.flatnonzero(np.concatenate([~np.isfinite(p).reshape(len(p), -1).all(axis=1) for p in pieces]))


def read_range(
    root: Path, array: ArrayLayout, manifest: Manifest, checkpoint: int, start: int, stop: int
) -> Float[np.ndarray, "row ..."]:
    """Rows start to stop of one checkpoint, which may lie in several shards.

    Raises:
        StoreCorruptError: a file is missing or too short.
    """
    out = np.empty((stop - start, *array.row_shape), dtype=array.dtype)
    for shard, first, last in split_at_shards(manifest, start, stop):
        file = root / array.file_name(checkpoint, shard)
        _read_into(file, first - shard * manifest.shard_rows, out[first - start : last - start])
    return out


def map_range(
    root: Path, array: ArrayLayout, manifest: Manifest, checkpoint: int, start: int, stop: int
) -> Float[np.ndarray, "row ..."]:
    """Rows start to stop of one checkpoint, all in one shard: read-only, mapped until the array is let go.

    For a scan that looks at every row once and need not hold it.

    Raises:
        StoreCorruptError: a file is missing or too short.
    """
    shard, first = divmod(start, manifest.shard_rows)
    file = root / array.file_name(checkpoint, shard)
    n_bytes, begin = (stop - start) * array.row_bytes, first * array.row_bytes
    skipped = begin % mmap.ALLOCATIONGRANULARITY  # a map begins at a page
    try:
        with file.open("rb") as stream:
            pages = mmap.mmap(stream.fileno(), n_bytes + skipped, access=mmap.ACCESS_READ, offset=begin - skipped)
    except (FileNotFoundError, ValueError) as error:
        raise _damaged(file) from error
    return np.frombuffer(pages, array.dtype, offset=skipped).reshape(stop - start, *array.row_shape)


def gather_rows(
    root: Path, array: ArrayLayout, manifest: Manifest, checkpoint: int, indices: Int[np.ndarray, " row"]
) -> Float[np.ndarray, "row ..."]:
    """Rows of one checkpoint in the order of `indices`, repeats allowed.

    Raises:
        StoreCorruptError: a file is missing or too short.
    """
    out = np.empty((len(indices), *array.row_shape), dtype=array.dtype)
    shards, rows = np.divmod(indices, manifest.shard_rows)
    for shard in np.unique(shards):
        wanted = np.flatnonzero(shards == shard)
        shape = (manifest.shard_rows, *array.row_shape)
        chunk = _map(root / array.file_name(checkpoint, int(shard)), array.dtype, shape)
        out[wanted] = chunk[rows[wanted]]
    return out


def _check_shapes(rows: ShardRows, manifest: Manifest) -> None:
    """Every array's part has its rows and width; ShapeError lists those that have not."""
    if set(rows.sets) != set(manifest.parameter_sets):
        raise ShapeError(
            f"A shard was handed over with gradients of {', '.join(rows.sets) or 'nothing'}; the store holds those of "
            f"{', '.join(manifest.parameter_sets)}."
        )
    wrong = []
    for array in arrays(manifest):
        of = rows if array.parameters is None else rows.sets[array.parameters]
        field, expected = _FIELDS[array.kind], (len(rows), *array.row_shape)
        found = getattr(of, field)
        if found is None or np.shape(found) != expected:
            wrong.append(f"{field} {None if found is None else np.shape(found)} instead of {expected}")
    if wrong:
        raise ShapeError(f"{len(rows)} examples of a shard were handed over with {'; '.join(wrong)}.")


def _filled_with_nan(array: ArrayLayout, manifest: Manifest) -> NDArray[Any]:
    return np.full((manifest.shard_rows, *array.row_shape), np.nan, dtype=array.dtype)


def _read_into(file: Path, first_row: int, out: NDArray[Any]) -> None:
    """Fill `out` with the rows of `file` from `first_row` on."""
    row_bytes = out.nbytes // len(out)
    try:
        with file.open("rb") as stream:
            stream.seek(first_row * row_bytes)
            n_bytes = stream.readinto(out.view(np.uint8).data)
    except FileNotFoundError as error:
        raise _damaged(file) from error
    if n_bytes != out.nbytes:
        raise _damaged(file)


def _map(file: Path, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        return np.memmap(file, dtype=dtype, mode="r", shape=shape)
    except (FileNotFoundError, ValueError) as error:
        raise _damaged(file) from error


def _damaged(file: Path) -> StoreCorruptError:
    state = f"has only {file.stat().st_size} bytes" if file.exists() else "is missing"
    return StoreCorruptError(
        f"{file} is committed but {state}. Run `gradstore verify` on the store to see all that is damaged."
    )
