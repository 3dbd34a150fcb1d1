"""A ranking as a file: Parquet, CSV or JSON lines.

Why the data is written as it is: ids and labels may begin with `=`, which a spreadsheet reads as a formula.
Escaping them would change ids that other programs must match, so the bytes stay plain data. A float32 is written
with the fewest digits that read back as the same float32. A file appears whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet

from gradstore.errors import QueryError
from gradstore.store.files import replacing, write_errors

_JSON_ROWS = 8192


def export(table: pa.Table, destination: Path | str | BinaryIO, format: str | None = None) -> None:
    """Write `table` to a path, or to an open binary stream such as `sys.stdout.buffer`.

    Args:
        format: `parquet`, `csv` or `jsonl`; None reads it from the path's extension.

    Raises:
        QueryError: an unknown format or extension; a stream without a format.
        StoreWriteError: the file cannot be written: disk full, no permission, no such folder.
    """
    write = _WRITERS[format_of(destination, format)]
    if isinstance(destination, str | Path):
        path = Path(destination)
        with write_errors(path), replacing(path) as temporary, temporary.open("wb") as stream:
            write(table, stream)
    else:
        write(table, destination)


def format_of(destination: Path | str | BinaryIO, format: str | None, also: Sequence[str] = ()) -> str:
    """The format's name; QueryError where there is none: ask before a long computation.

    Args:
        also: formats that the caller writes itself.
    """
    known = ", ".join((*_WRITERS, *also))
    if format is None and not isinstance(destination, str | Path):
        raise QueryError(f"A stream has no extension to tell the format by. Name one of: {known}.")
    found = format if format is not None else Path(str(destination)).suffix.removeprefix(".")
    name = _ALIASES.get(found.lower(), found.lower())
    if name not in _WRITERS and name not in also:
        where = "" if format is not None else f", the extension of {str(destination)!r},"
        raise QueryError(f"{found!r}{where} is no format that this can be written in. Use one of: {known}.")
    return name


def _write_parquet(table: pa.Table, stream: BinaryIO) -> None:
    pa.parquet.write_table(table, stream)


def _write_csv(table: pa.Table, stream: BinaryIO) -> None:
    pa.csv.write_csv(table, stream)


def _write_jsonl(table: pa.Table, stream: BinaryIO) -> None:
    for batch in table.to_batches(max_chunksize=_JSON_ROWS):
        columns = [_json_values(column) for column in batch.columns]
        for row in zip(*columns, strict=True):
            record = dict(zip(batch.schema.names, row, strict=True))
            stream.write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def _json_values(column: pa.Array[Any]) -> list[object]:
    """Python values; float32 through its shortest decimal form, so 41.2 stays 41.2."""
    if column.type != pa.float32():
        return column.to_pylist()
    return [None if text is None else float(text) for text in pc.cast(column, pa.string()).to_pylist()]


_WRITERS: dict[str, Callable[[pa.Table, BinaryIO], None]] = {
    "parquet": _write_parquet,
    "csv": _write_csv,
    "jsonl": _write_jsonl,
}
_ALIASES = {"pq": "parquet", "ndjson": "jsonl", "json": "jsonl", "htm": "html"}
