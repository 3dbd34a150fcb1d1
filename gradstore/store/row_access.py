"""Rows of an array, by range or by number, from wherever the store lies.

Why two ways of reading a folder: a range of rows is read by seek and read, which leaves nothing mapped, so that a
pass over a store of any size stays at the size of one block; scattered rows are gathered through a map that is opened
for the call and released with it (35-100 times faster than reading whole shards, measured). A search, which looks at
every row once, maps a shard at a time as well.

From a bucket, and from a sharded store wherever it lies, the bytes of the rows asked for are fetched: several shards
at once, for each costs a journey.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import Int, Shaped
from numpy.typing import NDArray

from gradstore.errors import StoreCorruptError
from gradstore.store.layout import ArrayLayout, split_at_shards
from gradstore.store.manifest import Manifest
from gradstore.store.place import Place

_AT_ONCE = 16
Piece = TypeVar("Piece")


@dataclass(frozen=True)
class _ShardFile:
    """The file of one array and shard."""

    place: Place
    array: ArrayLayout
    manifest: Manifest
    checkpoint: int
    shard: int

    @property
    def name(self) -> str:
        return self.array.file_name(self.checkpoint, self.shard)

    @property
    def plain(self) -> Path | None:
        """The file itself, where it is nothing but rows on a file system."""
        return None if self.manifest.sharded else self.place.local(self.name)

    def rows(self, numbers: NDArray[np.int64]) -> Shaped[np.ndarray, "row ..."]:
        """Rows of the shard, ascending and without repeats, by fetching them."""
        try:
            found = self._fetched(numbers)
        except FileNotFoundError as error:
            raise _damaged(self._shown, "is missing") from error
        return np.ascontiguousarray(found).reshape(-1).view(self.array.dtype).reshape(-1, *self.array.row_shape)

    def _fetched(self, numbers: NDArray[np.int64]) -> Shaped[np.ndarray, "row byte"]:
        if self.manifest.sharded:
            sharding = self.array.sharding(self.manifest)
            return sharding.read(lambda ranges: self.place.ranges(self.name, ranges), numbers, self._shown)
        runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
        size = self.array.row_bytes
        found = b"".join(self.place.ranges(self.name, [(int(r[0]) * size, (int(r[-1]) + 1) * size) for r in runs]))
        if len(found) != len(numbers) * size:
            raise _damaged(self._shown, "is too short")
        return np.frombuffer(found, dtype=np.uint8).reshape(len(numbers), size)

    @property
    def _shown(self) -> str:
        return f"{self.place.location}/{self.name}"


def read_range(
    place: Place, array: ArrayLayout, manifest: Manifest, checkpoint: int, start: int, stop: int
) -> Shaped[np.ndarray, "row ..."]:
    """Rows start to stop of one checkpoint, which may lie in several shards.

    Raises:
        StoreCorruptError: a file is missing, too short, or other than its checksums say.
    """
    out = np.empty((stop - start, *array.row_shape), dtype=array.dtype)

    def fill(piece: tuple[int, int, int]) -> None:
        shard, first, last = piece
        file, begin = _ShardFile(place, array, manifest, checkpoint, shard), first - shard * manifest.shard_rows
        rows = out[first - start : last - start]
        if (plain := file.plain) is not None:
            _read_into(plain, begin, rows)
        else:
            rows[:] = file.rows(np.arange(begin, begin + len(rows)))

    _do(fill, list(split_at_shards(manifest, start, stop)), place)
    return out


def map_range(
    place: Place, array: ArrayLayout, manifest: Manifest, checkpoint: int, start: int, stop: int
) -> Shaped[np.ndarray, "row ..."]:
    """Rows start to stop of one checkpoint, all in one shard: read-only, mapped until the array is let go.

    For a scan that looks at every row once and need not hold it. Where nothing can be mapped, the rows are read.

    Raises:
        StoreCorruptError: as for `read_range`.
    """
    shard, first = divmod(start, manifest.shard_rows)
    file = _ShardFile(place, array, manifest, checkpoint, shard).plain
    if file is None:
        return read_range(place, array, manifest, checkpoint, start, stop)
    n_bytes, begin = (stop - start) * array.row_bytes, first * array.row_bytes
    skipped = begin % mmap.ALLOCATIONGRANULARITY  # a map begins at a page
    try:
        with file.open("rb") as stream:
            pages = mmap.mmap(stream.fileno(), n_bytes + skipped, access=mmap.ACCESS_READ, offset=begin - skipped)
    except (FileNotFoundError, ValueError) as error:
        raise _damaged_file(file) from error
    return np.frombuffer(pages, array.dtype, offset=skipped).reshape(stop - start, *array.row_shape)


def gather_rows(
    place: Place, array: ArrayLayout, manifest: Manifest, checkpoint: int, indices: Int[np.ndarray, " row"]
) -> Shaped[np.ndarray, "row ..."]:
    """Rows of one checkpoint in the order of `indices`, repeats allowed.

    Raises:
        StoreCorruptError: as for `read_range`.
    """
    out = np.empty((len(indices), *array.row_shape), dtype=array.dtype)
    shards, rows = np.divmod(indices, manifest.shard_rows)

    def fill(shard: int) -> None:
        wanted = np.flatnonzero(shards == shard)
        file = _ShardFile(place, array, manifest, checkpoint, shard)
        if (plain := file.plain) is not None:
            out[wanted] = _map(plain, array.dtype, (manifest.shard_rows, *array.row_shape))[rows[wanted]]
        else:
            numbers, places = np.unique(rows[wanted], return_inverse=True)
            out[wanted] = file.rows(numbers)[places]

    _do(fill, np.unique(shards).tolist(), place)
    return out


def _do(work: Callable[[Piece], None], pieces: list[Piece], place: Place) -> None:
    """One after the other; several at once where each is a journey."""
    if place.local() is not None or len(pieces) < 2:
        for piece in pieces:
            work(piece)
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(work, pieces))


def _read_into(file: Path, first_row: int, out: NDArray[np.generic]) -> None:
    """Fill `out` with the rows of `file` from `first_row` on."""
    row_bytes = out.nbytes // len(out)
    try:
        with file.open("rb") as stream:
            stream.seek(first_row * row_bytes)
            n_bytes = stream.readinto(out.view(np.uint8).data)
    except FileNotFoundError as error:
        raise _damaged_file(file) from error
    if n_bytes != out.nbytes:
        raise _damaged_file(file)


def _map(file: Path, dtype: str, shape: tuple[int, ...]) -> Shaped[np.ndarray, "row ..."]:
    try:
        return np.memmap(file, dtype=dtype, mode="r", shape=shape)
    except (FileNotFoundError, ValueError) as error:
        raise _damaged_file(file) from error


def _damaged_file(file: Path) -> StoreCorruptError:
    return _damaged(str(file), f"has only {file.stat().st_size} bytes" if file.exists() else "is missing")


def _damaged(name: str, state: str) -> StoreCorruptError:
    return StoreCorruptError(
        f"{name} is committed but {state}. Run `gradstore verify` on the store to see all that is damaged."
    )
