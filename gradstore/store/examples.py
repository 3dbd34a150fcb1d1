"""examples.parquet: who row i is. Its id, its label, its file.

Row groups hold exactly 65,536 rows (the last one fewer), so that row i lies in group i // 65,536: a range of rows
touches only its own groups, and reading names keeps one group in memory.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from jaxtyping import Int
from numpy.typing import NDArray

from gradstore.errors import GradstoreError, ShapeError, StoreCorruptError, UnknownExampleError
from gradstore.store.commits import FileHash
from gradstore.store.files import write_errors
from gradstore.store.place import Place, below

GROUP_ROWS = 65_536
_FIELDS: list[pa.Field[Any]] = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("label", pa.int32()),
    pa.field("path", pa.string()),
]
SCHEMA = pa.schema(_FIELDS)

# Comparing one id with one other costs about 20 us: enough names to find a slip, few enough to answer at once.
_COMPARED_IDS = 10_000
_CLOSEST = 3


def write_examples(place: Place, name: str, batches: Iterable[pa.RecordBatch], n_examples: int) -> str:
    """Write examples.parquet under this name, a row group at a time. Returns its SHA-256.

    Raises:
        ShapeError: the batches hold more or fewer rows than `n_examples`; nothing is written then.
        StoreWriteError: no room, no permission.
    """
    path = below(place.location, name)
    with place.replacing(name) as temp:
        n_rows = 0
        with write_errors(path):
            writer = pq.ParquetWriter(temp, SCHEMA, write_page_checksum=True)
        try:
            for group in _in_groups(batches):
                n_rows += group.num_rows
                with write_errors(path):
                    writer.write_table(group.combine_chunks(), row_group_size=GROUP_ROWS)
        finally:
            with write_errors(path):
                writer.close()
        if n_rows != n_examples:
            raise ShapeError(
                f"The manifest says {n_examples} examples, the source gave {n_rows}. Build from one source."
            )
        return FileHash.read(temp).sha256


class Examples:
    """Ids, labels and paths of a store's rows, read from examples.parquet."""

    def __init__(self, locate: Callable[[], Path], n_examples: int | None = None) -> None:
        """Nothing is read yet.

        Args:
            locate: gives the file on this machine; called when it is first read.
            n_examples: rows that count: others may be appended while the store is open.
        """
        self._locate, self._n_examples = locate, n_examples
        self._last: tuple[int, pa.Table] | None = None

    def ids(self, start: int, stop: int) -> list[str]:
        return list(self._column("id", start, stop))

    def paths(self, start: int, stop: int) -> list[str | None]:
        return list(self._column("path", start, stop))

    def labels(self) -> Int[np.ndarray, " example"] | None:
        """[N] int32, -1 where an example has none; None when no example has one."""
        groups = [_with_minus_one(group.column("label")) for group in self._groups(["label"])]
        labels = np.concatenate(groups)
        return None if (labels == -1).all() else labels

    def take(self, rows: Int[np.ndarray, " row"]) -> pa.Table:
        """id, label and path of scattered rows, in the order asked for; one row group in memory at a time."""
        order = np.argsort(rows, kind="stable")
        numbers = rows[order] // GROUP_ROWS
        with _reading(self._path):
            parts = [
                self._group(int(number)).take(rows[order][numbers == number] % GROUP_ROWS)
                for number in np.unique(numbers)
            ]
        return pa.concat_tables([SCHEMA.empty_table(), *parts]).take(np.argsort(order, kind="stable"))

    def row_of(self, ids: Sequence[str]) -> Int[np.ndarray, " id"]:
        """[n] int64, the row of each id.

        Raises:
            UnknownExampleError: names the first unknown id and the ids closest to it.
        """
        wanted = list(dict.fromkeys(ids))
        rows = self._find(wanted)
        missing = [name for name, row in zip(wanted, rows, strict=True) if row < 0]
        if missing:
            raise UnknownExampleError(self._unknown(missing))
        found = dict(zip(wanted, rows.tolist(), strict=True))
        return np.array([found[name] for name in ids], dtype=np.int64)

    @cached_property
    def _path(self) -> Path:
        try:
            return self._locate()
        except FileNotFoundError as error:
            raise StoreCorruptError(f"examples.parquet is missing ({error}): rows have no ids. {_CURE}") from error

    def _find(self, wanted: list[str]) -> NDArray[np.int64]:
        """The row of each of these distinct ids, -1 where there is none; one streaming pass."""
        rows = np.full(len(wanted), -1, dtype=np.int64)
        targets = pa.array(wanted, pa.string())
        for number, group in enumerate(self._groups(["id"])):
            which = pc.index_in(group.column("id"), value_set=targets).to_numpy()  # NaN where not wanted
            hits = np.flatnonzero(~np.isnan(which))
            rows[which[hits].astype(np.int64)] = number * GROUP_ROWS + hits
        return rows

    def _unknown(self, missing: Sequence[str]) -> str:
        close = difflib.get_close_matches(missing[0], self._similar(missing[0]), n=_CLOSEST)
        hint = (
            f"Close: {', '.join(map(repr, close))}." if close else "Its ids look like " + repr(self.ids(0, 1)[0]) + "."
        )
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        return f"The store has no example {missing[0]!r}{more}. {hint} `gradstore rank-outliers` lists ids."

    def _similar(self, name: str) -> list[str]:
        """At most _COMPARED_IDS ids to compare with: those that begin alike first, then those at the start."""
        alike = list(islice(self._beginning_with(name[: len(name) // 2]), _COMPARED_IDS))
        first = islice(self._beginning_with(""), _COMPARED_IDS - len(alike))
        return list(dict.fromkeys([*alike, *first]))

    def _beginning_with(self, prefix: str) -> Iterator[str]:
        for group in self._groups(["id"]):
            column = group.column("id")
            yield from map(str, column.filter(pc.starts_with(column, prefix)).to_pylist())

    def _column(self, name: str, start: int, stop: int) -> Iterator[Any]:
        for number in range(start // GROUP_ROWS, -(-stop // GROUP_ROWS)):
            base = number * GROUP_ROWS
            first, last = max(start - base, 0), min(stop - base, GROUP_ROWS)
            with _reading(self._path):
                values = self._group(number).column(name).slice(first, last - first).to_pylist()
            yield from values

    def _group(self, number: int) -> pa.Table:
        """One row group; the last one read stays in memory, for ranges are asked for in order."""
        last = self._last
        if last is None or last[0] != number:
            with _reading(self._path), _opened(self._path) as file:
                last = (number, file.read_row_group(number))
            self._last = last
        return last[1]

    def _groups(self, columns: list[str]) -> Iterator[pa.Table]:
        with _reading(self._path), _opened(self._path) as file:
            n_rows = file.metadata.num_rows if self._n_examples is None else self._n_examples
            for number in range(-(-n_rows // GROUP_ROWS)):
                yield file.read_row_group(number, columns=columns).slice(0, n_rows - number * GROUP_ROWS)


def _opened(path: Path) -> pq.ParquetFile:
    return pq.ParquetFile(path, page_checksum_verification=True)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes Parquet's reader raise, as StoreCorruptError with the file's name."""
    try:
        yield
    except GradstoreError:
        raise
    except (OSError, pa.ArrowException, UnicodeDecodeError, IndexError, KeyError) as error:
        raise StoreCorruptError(
            f"{path} cannot be read ({error}). `gradstore verify` says what else is damaged. {_CURE}"
        ) from error


_CURE = "Restore the file from a copy, or build the store anew."


def _in_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same rows in tables of GROUP_ROWS, the last one shorter."""
    held = SCHEMA.empty_table()
    for batch in batches:
        held = pa.concat_tables([held, pa.Table.from_batches([batch]).select(SCHEMA.names).cast(SCHEMA)])
        while held.num_rows >= GROUP_ROWS:
            yield held.slice(0, GROUP_ROWS)
            held = held.slice(GROUP_ROWS)
    if held.num_rows:
        yield held


def _with_minus_one(column: pa.ChunkedArray[Any]) -> NDArray[np.int32]:
    labels = column.to_numpy()  # float64 with NaN where the group has nulls
    return np.where(np.isnan(labels), -1, labels).astype(np.int32)
