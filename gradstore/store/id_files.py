"""Ids out of a file: text, CSV, JSON, JSON lines or Parquet, such as a ranking that was written and cut by hand."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gradstore.errors import QueryError

_COLUMN = "id"


def read_ids(path: Path) -> list[str]:
    """Ids in a file, in its order; what it is, is told by its extension.

    - `.csv`: the column `id`; without such a heading, the only column.
    - `.json`: a list of ids, or of objects with an `id`; also what `--json` prints. `.jsonl`: one such a line.
    - `.parquet`: the column `id`, or the only column.
    - anything else: text, one id a line; empty lines count for nothing.

    Raises:
        QueryError: no such file, or one that holds no ids.
    """
    try:
        found = _parquet(path) if path.suffix == ".parquet" else parse_ids(path.read_text("utf-8-sig"), path.suffix)
    except (OSError, ValueError) as error:  # a UnicodeDecodeError is a ValueError, and so is JSON's
        raise QueryError(f"'{path}' is no list of ids ({error}). {_EXPECTED}") from error
    if not found:
        raise QueryError(f"'{path}' holds no id. {_EXPECTED}")
    return found


def parse_ids(text: str, suffix: str = "") -> list[str]:
    r"""Ids in a text of the kind that `suffix` names.

    >>> parse_ids("b\n\na\n"), parse_ids("rank,id\n1,b\n", ".csv"), parse_ids('["b", "a"]', ".json")
    (['b', 'a'], ['b'], ['b', 'a'])

    Raises:
        ValueError: not such a text.
    """
    match suffix:
        case ".csv":
            return _csv(text)
        case ".json":
            return _of_values(json.loads(text))
        case ".jsonl" | ".ndjson":
            return _of_values([json.loads(line) for line in text.splitlines() if line.strip()])
    return [line for line in text.splitlines() if line]


def _csv(text: str) -> list[str]:
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    if not rows:
        return []
    if _COLUMN in rows[0]:
        return [row[rows[0].index(_COLUMN)] for row in rows[1:]]
    if max(map(len, rows)) > 1:
        raise ValueError(f"its columns are {', '.join(rows[0])}, and none is {_COLUMN!r}")
    return [row[0] for row in rows]


def _of_values(document: Any) -> list[str]:
    if isinstance(document, dict):  # what --json prints has its rows in a list
        document = next((value for value in document.values() if isinstance(value, list)), None)
    if not isinstance(document, list):
        raise ValueError("it holds no list")
    return list(_named(document))


def _named(values: Iterable[Any]) -> Iterable[str]:
    for value in values:
        name = value.get(_COLUMN) if isinstance(value, dict) else value
        if not isinstance(name, str):
            raise ValueError(f"{json.dumps(value):.60} is neither an id nor an object with one")
        yield name


def _parquet(path: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = pq.read_schema(path).names
        if _COLUMN not in names and len(names) != 1:
            raise ValueError(f"its columns are {', '.join(names)}, and none is {_COLUMN!r}")
        column = pq.read_table(path, columns=[_COLUMN if _COLUMN in names else names[0]]).column(0)
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error
    return list(_named(column.to_pylist()))


_EXPECTED = (
    "Give a text file with one id a line, a .csv or .parquet file with a column 'id', or a .json or .jsonl list of ids."
)
