"""What a search reads: the rows of a store, and queries in the same form.

The protocols name the few methods of `gradstore.store.Store` that searching needs, so that a search runs on
anything that holds rows and is tested on arrays in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeGuard, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float16, Float32, Float64, Int
from torch import Tensor

from gradstore.errors import QueryError, ShapeError, StoreCorruptError, StoreIncompleteError

BLOCK_ROWS = 4096
BLOCK_BYTES = 1 << 26


@runtime_checkable
class Rows(Protocol):
    """Examples in store order."""

    @property
    def n_examples(self) -> int: ...

    @property
    def n_checkpoints(self) -> int: ...

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[tuple[int, int]]:
        """(start, stop) in ascending order, covering all examples, at most `rows` long."""


@runtime_checkable
class LatentRows(Rows, Protocol):
    """Examples as points in latent space, one point a checkpoint."""

    def latents(self, checkpoint: int, start: int, stop: int) -> Float32[np.ndarray, "row d_latent"]: ...


@runtime_checkable
class SketchRows(Rows, Protocol):
    """Gradient sketches divided by the exact gradient norm, and those norms."""

    @property
    def d_sketch(self) -> int: ...

    @property
    def learning_rates(self) -> Float64[np.ndarray, " checkpoint"]: ...

    def unit_sketches(self, checkpoint: int, start: int, stop: int) -> Float16[np.ndarray, "row d_sketch"]: ...

    def sketch_rows(self, checkpoint: int, indices: Int[np.ndarray, " row"]) -> Float16[np.ndarray, "row d_sketch"]: ...

    def norms(self, checkpoint: int) -> Float32[np.ndarray, " example"]: ...


@runtime_checkable
class MappedRows(Protocol):
    """Rows that can be looked at without a copy, for a range within one of `blocks`; `is_mapped` says whether."""

    @property
    def maps_sketches(self) -> bool:
        """False where `mapped_sketches` is a copy after all: in a bucket, or of another dtype."""

    def mapped_sketches(self, checkpoint: int, start: int, stop: int) -> Float16[np.ndarray, "row d_sketch"]: ...


def is_mapped(rows: object) -> TypeGuard[MappedRows]:
    """Whether looking at rows copies nothing, so that whole shards may be kept at hand."""
    return isinstance(rows, MappedRows) and rows.maps_sketches


@runtime_checkable
class PreciseRows(Protocol):
    """Rows that may be kept in more than float16."""

    def precise_sketches(self, checkpoint: int, start: int, stop: int) -> Float32[np.ndarray, "row d_sketch"]: ...


def precise_sketches(rows: HalfRows, checkpoint: int, start: int, stop: int) -> Float32[np.ndarray, "row d_sketch"]:
    """Unit sketches as they are stored, as far as float32 goes: for what is summed over many rows."""
    if isinstance(rows, PreciseRows):
        return rows.precise_sketches(checkpoint, start, stop)
    return rows.unit_sketches(checkpoint, start, stop).astype(np.float32)


class HalfRows(Protocol):
    """What every store's rows can be read as."""

    def unit_sketches(self, checkpoint: int, start: int, stop: int) -> Float16[np.ndarray, "row d_sketch"]: ...


@runtime_checkable
class GrowingRows(Protocol):
    """Rows of a store whose build may still be going on."""

    def committed_blocks(self, checkpoint: int, rows: int = BLOCK_ROWS) -> Iterator[tuple[int, int]]:
        """Those of `blocks` that can be read at this checkpoint."""

    def norms(self, checkpoint: int, start: int = 0, stop: int | None = None) -> Float32[np.ndarray, " row"]: ...


@runtime_checkable
class StoredRows(SketchRows, Protocol):
    """Rows on disk, with a fingerprint that changes when any row changes."""

    @property
    def location(self) -> str: ...

    def content_fingerprint(self) -> str: ...


@dataclass(frozen=True, eq=False)
class QuerySketches:
    """Queries in the form of the stored rows.

    `unit` are sketches divided by the exact gradient norm, `norms` those norms, at each checkpoint.

    Raises:
        ShapeError: the two arrays disagree.
        QueryError: a NaN or an infinity in either.
    """

    unit: Float32[np.ndarray, "checkpoint query d_sketch"]
    norms: Float32[np.ndarray, "checkpoint query"]

    def __post_init__(self) -> None:
        if self.unit.shape[:2] != self.norms.shape:
            raise ShapeError(
                f"unit sketches have shape {self.unit.shape} and norms {self.norms.shape}; "
                "expected [checkpoint, query, d_sketch] and [checkpoint, query]."
            )
        if not (np.isfinite(self.unit).all() and np.isfinite(self.norms).all()):
            raise QueryError(
                "The query's gradient sketch holds NaN or infinity; expected finite numbers. "
                "Check the query's values, and that the model's loss of it is finite."
            )

    def __len__(self) -> int:
        return int(self.norms.shape[1])

    def at(self, checkpoints: Sequence[int]) -> QuerySketches:
        """The same queries at these checkpoints alone."""
        return QuerySketches(self.unit[list(checkpoints)], self.norms[list(checkpoints)])

    @classmethod
    def from_sketches(
        cls,
        sketches: Float[np.ndarray, "checkpoint query d_sketch"],
        sq_norms: Float[np.ndarray, "checkpoint query"],
    ) -> QuerySketches:
        """Raw sketches and exact squared norms, as the engine gives them; a zero gradient stays zero."""
        norms = np.sqrt(np.asarray(sq_norms, dtype=np.float64))
        unit = sketches / np.where(norms > 0, norms, 1.0)[..., None]
        return cls(unit.astype(np.float32), norms.astype(np.float32))


def stored_queries(rows: SketchRows, indices: Int[np.ndarray, " query"]) -> QuerySketches:
    """Rows of the store as queries. Pass the same `indices` as `exclude` so that none finds itself."""
    checkpoints = range(rows.n_checkpoints)
    unit = np.stack([rows.sketch_rows(t, indices) for t in checkpoints]).astype(np.float32)
    norms = np.stack([_norms_of(rows, t, indices) for t in checkpoints]).astype(np.float32)
    return QuerySketches(np.where(norms[..., None] > 0, unit, np.float32(0)), norms)


def _norms_of(rows: SketchRows, checkpoint: int, indices: Int[np.ndarray, " query"]) -> Float32[np.ndarray, " query"]:
    """Norms of scattered rows; of an unfinished store one by one."""
    try:
        return np.asarray(rows.norms(checkpoint)[indices])
    except StoreIncompleteError:
        if not isinstance(rows, GrowingRows):
            raise
        return np.concatenate([rows.norms(checkpoint, int(row), int(row) + 1) for row in indices])


def all_norms(rows: SketchRows) -> Float32[np.ndarray, "checkpoint example"]:
    """Every exact norm: 4 bytes an example and checkpoint, the one thing a search holds for all examples.

    Raises:
        StoreCorruptError: some norms are not finite numbers.
    """
    norms = np.stack([rows.norms(t) for t in range(rows.n_checkpoints)])
    damaged = np.flatnonzero(~np.isfinite(norms).all(axis=0))
    if damaged.size:
        raise StoreCorruptError(
            f"{damaged.size} of {rows.n_examples} examples have a gradient norm that is not a finite number "
            f"(first: row {damaged[0]}); a store never holds such rows. Run: gradstore verify STORE"
        )
    return norms


def to_device(array: Float[np.ndarray, "..."], dtype: torch.dtype, device: torch.device | str) -> Tensor:
    """A tensor of the array's values; a read-only array (a memory map) is copied, as torch cannot share it."""
    return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(device).to(dtype)


def block_rows_within(bytes_a_row: int, at_most: int = BLOCK_ROWS) -> int:
    """Rows of a block that stays within 64 MiB, whatever the number of checkpoints."""
    return max(64, min(at_most, BLOCK_BYTES // bytes_a_row))
