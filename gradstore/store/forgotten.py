"""Forgotten examples: their rows stay in the store, and no answer takes notice of them.

    forgotten.parquet      row (int64) and id (string) of each, ascending, with the file's own hash

Why a list beside the store and not rows taken out: the numbers of rows are what shards, indexes and graphs are made
of. A list is written in a moment and taken back in a moment. Why ids as well as rows: so that it can be read without
the store, and held against it.

Who takes notice: rankings and all their statistics, searches, neighbours, credibility and the readers of a graph.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Int64
from numpy.typing import NDArray

from gradstore.errors import GradstoreError, QueryError, StoreCorruptError
from gradstore.store.place import Place
from gradstore.store.sealed_table import require_sealed_table, sealed_table_bytes

FORGOTTEN = "forgotten.parquet"

_FIELDS: list[pa.Field[Any]] = [
    pa.field("row", pa.int64(), nullable=False),
    pa.field("id", pa.string(), nullable=False),
]
_SCHEMA = pa.schema(_FIELDS)
_SHOWN = 5


class Identified(Protocol):
    """What a list of forgotten examples is about."""

    place: Place

    @property
    def location(self) -> str: ...

    @property
    def n_examples(self) -> int: ...

    def row_of(self, ids: Sequence[str]) -> NDArray[np.int64]: ...


def forgotten_rows(store: Identified) -> Int64[np.ndarray, " forgotten"]:
    """Rows of the forgotten examples, ascending.

    Raises:
        StoreCorruptError: the list is damaged.
    """
    if not store.place.exists(FORGOTTEN):
        return np.empty(0, dtype=np.int64)
    rows = _read(store).column("row").to_numpy()
    return rows[rows < store.n_examples]  # a store that was opened before others were appended knows nothing of them


def forgotten_mask(store: Identified) -> Bool[np.ndarray, " example"] | None:
    """True for the forgotten; None where nothing is.

    Raises:
        StoreCorruptError: the list is damaged.
    """
    rows = forgotten_rows(store)
    if not rows.size:
        return None
    mask = np.zeros(store.n_examples, dtype=np.bool_)
    mask[rows] = True
    return mask


def forget(store: Identified, ids: Sequence[str]) -> int:
    """Forget these examples too. Returns how many were not forgotten before.

    Raises:
        UnknownExampleError: an id that the store has not; nothing is forgotten then.
        QueryError: no example would be left.
        StoreWriteError: no room, no permission.
    """
    before, asked = forgotten_rows(store), store.row_of(ids)
    rows = np.union1d(before, asked)
    if len(rows) == store.n_examples:
        raise QueryError(f"All {len(rows)} examples of '{store.location}' would be forgotten. Keep at least one.")
    if len(rows) > len(before):
        names = dict(zip(asked.tolist(), ids, strict=True)) | _names(store)
        _write(store, rows, [names[row] for row in rows.tolist()])
    return len(rows) - len(before)


def remember(store: Identified, ids: Sequence[str] | None = None) -> int:
    """Take notice of these examples again, or of all. Returns how many had been forgotten.

    Raises:
        UnknownExampleError: an id that the store has not.
        QueryError: an example that was not forgotten; nothing is changed then.
    """
    before, names = forgotten_rows(store), _names(store)
    back = before if ids is None else store.row_of(ids)
    strange = np.flatnonzero(~np.isin(back, before))
    if strange.size and ids is not None:
        shown = ", ".join(repr(ids[number]) for number in strange[:_SHOWN])
        raise QueryError(
            f"{len(strange)} of these {len(ids)} examples are not forgotten: {shown}"
            f"{', …' if len(strange) > _SHOWN else ''}. Leave them out, or undo all without naming any."
        )
    rows = np.setdiff1d(before, back)
    if rows.size:
        _write(store, rows, [names[row] for row in rows.tolist()])
    elif before.size:
        store.place.remove(FORGOTTEN)
    return len(before) - len(rows)


def fingerprint_of(mask: Bool[np.ndarray, " example"]) -> str:
    """Hash of which examples are forgotten: what is computed without them is kept under it."""
    return hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()


def _names(store: Identified) -> dict[int, str]:
    """Row -> id of what is forgotten."""
    if not store.place.exists(FORGOTTEN):
        return {}
    table = _read(store)
    return dict(zip(table.column("row").to_numpy().tolist(), map(str, table.column("id").to_pylist()), strict=True))


def _read(store: Identified) -> pa.Table:
    try:
        stream = io.BytesIO(store.place.read(FORGOTTEN))
        require_sealed_table(stream, FORGOTTEN)
        stream.seek(0)
        return pq.read_table(stream).select(_SCHEMA.names).cast(_SCHEMA)
    except GradstoreError as error:
        error.add_note(f"In the store '{store.location}'. {_CURE}")
        raise
    except (OSError, pa.ArrowException, KeyError) as error:
        raise StoreCorruptError(f"{FORGOTTEN} of '{store.location}' cannot be read ({error}). {_CURE}") from error


def _write(store: Identified, rows: NDArray[np.int64], ids: Sequence[str]) -> None:
    table = pa.table({"row": pa.array(rows), "id": pa.array(ids, pa.string())}, schema=_SCHEMA)
    store.place.write(FORGOTTEN, sealed_table_bytes(table))


_CURE = "Restore it from a copy, or delete it and run gradstore forget again with the ids."
