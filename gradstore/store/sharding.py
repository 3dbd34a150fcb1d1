"""A shard's file with an index and checksums within: Zarr's codec `sharding_indexed`, as suits object stores.

The rows are cut into inner chunks of about 256 KiB, each followed by its CRC-32C; behind the last stands the index,
the offset and size of every chunk, and its CRC-32C. A reader fetches the chunks that hold its rows and checks each:
what travels over a network is not to be trusted as what lies under a file system is.

Why readers do not read the index: every chunk is there, in order, and of one size, so that where chunk j lies is
arithmetic. Other readers of Zarr find it by the index.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy.typing import NDArray

from gradstore.errors import StoreCorruptError

INNER_BYTES = 1 << 18
_CRC_BYTES = 4
_ENTRY_BYTES = 16  # offset and size, 64 bits each

Fetch = Callable[[Sequence[tuple[int, int]]], list[bytes]]
"""(start, stop) of byte ranges of one file -> their bytes."""


@dataclass(frozen=True)
class Sharding:
    """How the R rows of a shard are cut: into equal chunks, the largest that stay within 256 KiB."""

    shard_rows: int
    row_bytes: int

    @property
    def rows(self) -> int:
        """Of an inner chunk: a divisor of R, at least 1."""
        fit = max(1, min(self.shard_rows, INNER_BYTES // self.row_bytes))
        return next(rows for rows in range(fit, 0, -1) if self.shard_rows % rows == 0)

    @property
    def n_chunks(self) -> int:
        return self.shard_rows // self.rows

    @property
    def chunk_bytes(self) -> int:
        """Of an inner chunk, without its checksum."""
        return self.rows * self.row_bytes

    @property
    def file_bytes(self) -> int:
        """Of a whole file."""
        return self.n_chunks * (self._stride + _ENTRY_BYTES) + _CRC_BYTES

    @property
    def _stride(self) -> int:
        return self.chunk_bytes + _CRC_BYTES

    def pack(self, chunk: NDArray[Any]) -> memoryview:
        """[R, …] rows as the bytes of their file."""
        packed = np.empty(self.file_bytes, dtype=np.uint8)
        chunks = packed[: self.n_chunks * self._stride].reshape(self.n_chunks, self._stride)
        chunks[:, :-_CRC_BYTES] = chunk.reshape(-1).view(np.uint8).reshape(self.n_chunks, self.chunk_bytes)
        for row in chunks:
            row[-_CRC_BYTES:] = _checksum(row[:-_CRC_BYTES])
        index = packed[self.n_chunks * self._stride : -_CRC_BYTES]
        index[:] = self._index().view(np.uint8).reshape(-1)
        packed[-_CRC_BYTES:] = _checksum(index)
        return packed.data

    def read(self, fetch: Fetch, rows: NDArray[np.int64], name: str) -> Shaped[np.ndarray, "row byte"]:
        """The bytes of some rows, ascending and without repeats; chunks side by side are fetched as one range.

        Raises:
            StoreCorruptError: a chunk is cut short, or its checksum is of other bytes; `name` is the file's.
        """
        numbers = np.unique(rows // self.rows)
        runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
        ranges = [(int(run[0]) * self._stride, (int(run[-1]) + 1) * self._stride) for run in runs]
        found = [self._checked(data, run, name) for data, run in zip(fetch(ranges), runs, strict=True)]
        held = np.concatenate(found).reshape(-1, self.row_bytes)
        places = np.searchsorted(numbers, rows // self.rows) * self.rows + rows % self.rows
        return np.asarray(held[places])

    def _checked(self, data: bytes, run: NDArray[np.int64], name: str) -> NDArray[np.uint8]:
        """[n, chunk bytes], without the checksums."""
        if len(data) != len(run) * self._stride:
            raise _damaged(name, f"has only {len(data)} bytes of its chunks {run[0]} to {run[-1]}")
        chunks = np.frombuffer(data, dtype=np.uint8).reshape(len(run), self._stride)
        for number, row in zip(run.tolist(), chunks, strict=True):
            if bytes(row[-_CRC_BYTES:]) != _checksum(row[:-_CRC_BYTES]).tobytes():
                raise _damaged(name, f"has other bytes in its chunk {number} than its checksum says")
        return chunks[:, :-_CRC_BYTES]

    def _index(self) -> NDArray[np.uint64]:
        index = np.empty((self.n_chunks, 2), dtype="<u8")
        index[:, 0], index[:, 1] = np.arange(self.n_chunks) * self._stride, self._stride
        return index


def _checksum(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """CRC-32C, little-endian."""
    from google_crc32c import value

    return np.frombuffer(int(value(data.tobytes())).to_bytes(_CRC_BYTES, "little"), dtype=np.uint8)


def _damaged(name: str, found: str) -> StoreCorruptError:
    return StoreCorruptError(f"{name} {found}. Run `gradstore verify` on the store to see all that is damaged.")
