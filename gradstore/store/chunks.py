"""The rows of a shard as bytes, and bytes as rows.

Each of the four arrays keeps a shard in one raw file of little-endian rows, the last shard filled up with NaN.

Why two ways of reading: a range of rows is read by seek and read, which leaves nothing mapped, so that a pass over a
store of any size stays at the size of one block; scattered rows are gathered through a map that is opened for the
call and released with it (35-100 times faster than reading whole shards, measured).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from gradstore.errors import ShapeError, StoreCorruptError, TaskError
from gradstore.store.layout import LATENTS, LOSSES, NORMS, SKETCHES, ArrayLayout, split_at_shards
from gradstore.store.manifest import Manifest

_SHOWN_IDS = 5
_CHECKED_ROWS = 512


@dataclass(frozen=True)
class ShardRows:
    """Examples at one checkpoint, as a unit of work hands them to the store: a whole shard, or a part of it."""

    sketches: NDArray[np.float32]
    """[n, k], not normalised"""
    sq_norms: NDArray[np.float64]
    """[n], exact squared gradient norms"""
    losses: NDArray[np.float32]
    """[n]"""
    latents: NDArray[np.float32]
    """[n, d]"""


def encode(parts: Iterable[ShardRows], manifest: Manifest, n_rows: int) -> dict[str, NDArray[Any]]:
    """The four chunks of a shard: array name -> [R, …] in the store's dtype, rows from n on NaN.

    Sketch rows become s / |g|, so that float16 neither overflows nor underflows; a row whose norm is 0 (as float32)
    becomes 0. The quotient is computed in float64 and rounded once. Parts are taken in one by one: no float32 copy of
    the shard is ever in memory.

    Raises:
        ShapeError: `parts` are not n_rows of what the manifest describes.
    """
    chunks = {a.name: _filled_with_nan(a, manifest) for a in (SKETCHES, NORMS, LOSSES, LATENTS)}
    done = 0
    for part in parts:
        size = len(part.sq_norms)
        _check_shapes(part, manifest, size)
        if done + size > n_rows:
            raise ShapeError(f"A shard of {n_rows} examples was handed over with {done + size}.")
        _encode_part(part, {name: chunk[done : done + size] for name, chunk in chunks.items()})
        done += size
    if done != n_rows:
        raise ShapeError(f"A shard of {n_rows} examples was handed over with {done}.")
    return chunks


def _encode_part(rows: ShardRows, chunks: dict[str, NDArray[Any]]) -> None:
    with np.errstate(over="ignore", invalid="ignore"):  # what that gives is refused by name, in check_finite
        norms = np.sqrt(np.asarray(rows.sq_norms, dtype=np.float64))
        chunks[NORMS.name][:] = norms
        chunks[LOSSES.name][:] = rows.losses
        chunks[LATENTS.name][:] = rows.latents
        _divide(rows.sketches, norms, has_norm=chunks[NORMS.name] != 0, out=chunks[SKETCHES.name])


def check_finite(
    chunks: dict[str, NDArray[Any]], n_rows: int, checkpoint: int, ids: Callable[[], Sequence[str]]
) -> None:
    """Refuse NaN and infinity in the first `n_rows`; `ids` names those rows and is called only then.

    Raises:
        TaskError: names the quantity and the examples.
    """
    names = {LOSSES: "loss", NORMS: "gradient norm", SKETCHES: "sketch / norm", LATENTS: "latent"}
    for array, what in names.items():
        bad = _not_finite(chunks[array.name][:n_rows])
        if bad.size:
            examples = ids()
            shown = ", ".join(repr(examples[row]) for row in bad[:_SHOWN_IDS])
            raise TaskError(
                f"At checkpoint {checkpoint} the {what} of {bad.size} of {n_rows} examples is not finite: {shown}"
                f"{', …' if bad.size > _SHOWN_IDS else ''}. A store holds finite numbers only. "
                "Look at these examples, or leave this checkpoint out: training may have diverged."
            )


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
    out = np.empty((stop - start, *array.row_shape(manifest)), dtype=array.dtype)
    for shard, first, last in split_at_shards(manifest, start, stop):
        file = root / array.file_name(checkpoint, shard)
        _read_into(file, first - shard * manifest.shard_rows, out[first - start : last - start])
    return out


def gather_rows(
    root: Path, array: ArrayLayout, manifest: Manifest, checkpoint: int, indices: Int[np.ndarray, " row"]
) -> Float[np.ndarray, "row ..."]:
    """Rows of one checkpoint in the order of `indices`, repeats allowed.

    Raises:
        StoreCorruptError: a file is missing or too short.
    """
    row_shape = array.row_shape(manifest)
    out = np.empty((len(indices), *row_shape), dtype=array.dtype)
    shards, rows = np.divmod(indices, manifest.shard_rows)
    for shard in np.unique(shards):
        wanted = np.flatnonzero(shards == shard)
        chunk = _map(root / array.file_name(checkpoint, int(shard)), array.dtype, (manifest.shard_rows, *row_shape))
        out[wanted] = chunk[rows[wanted]]
    return out


def _check_shapes(rows: ShardRows, manifest: Manifest, n_rows: int) -> None:
    found = {name: np.shape(getattr(rows, name)) for name in ("sketches", "sq_norms", "losses", "latents")}
    expected = {
        "sketches": (n_rows, manifest.d_sketch),
        "sq_norms": (n_rows,),
        "losses": (n_rows,),
        "latents": (n_rows, manifest.d_latent),
    }
    wrong = [f"{name} {found[name]} instead of {expected[name]}" for name in expected if found[name] != expected[name]]
    if wrong:
        raise ShapeError(f"A shard of {n_rows} examples was handed over with {'; '.join(wrong)}.")


def _filled_with_nan(array: ArrayLayout, manifest: Manifest) -> NDArray[Any]:
    return np.full((manifest.shard_rows, *array.row_shape(manifest)), np.nan, dtype=array.dtype)


def _divide(
    sketches: NDArray[np.float32], norms: NDArray[np.float64], *, has_norm: NDArray[np.bool_], out: NDArray[np.float16]
) -> None:
    out[:] = 0
    # Casting inside the ufunc works in buffers of a few thousand numbers: no float64 copy of the shard.
    np.divide(sketches, norms[:, None], out=out, where=has_norm[:, None], casting="same_kind")


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
