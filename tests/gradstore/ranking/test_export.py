from __future__ import annotations

import csv
import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradstore.errors import QueryError, StoreWriteError
from gradstore.ranking.export import export

HOSTILE = ['=1+1,"x"', "a\nb", "Grüße", ""]


@pytest.fixture
def table() -> pa.Table:
    return pa.table(
        {
            "id": HOSTILE,
            "label": [None, "cat", "dog", ""],
            "rank": [1, 2, 3, 4],
            "loss": pa.array(np.array([41.2, 0.1, 3.0, 1e-9], dtype=np.float32)),
        }
    )


def test_parquet_reads_back_as_the_same_table(table: pa.Table, tmp_path: Path) -> None:
    export(table, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").equals(table)


def test_csv_reads_back_every_character(table: pa.Table, tmp_path: Path) -> None:
    export(table, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["id"] for row in rows] == HOSTILE
    assert [row["loss"] for row in rows][:2] == ["41.2", "0.1"]


def test_json_lines_hold_one_object_a_row_with_short_numbers(table: pa.Table, tmp_path: Path) -> None:
    export(table, str(tmp_path / "out.jsonl"))
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert rows[0] == {"id": HOSTILE[0], "label": None, "rank": 1, "loss": 41.2}
    assert [row["id"] for row in rows] == HOSTILE


@pytest.mark.parametrize("format", ["parquet", "csv", "jsonl"])
def test_a_stream_gets_the_bytes_that_a_file_gets(table: pa.Table, tmp_path: Path, format: str) -> None:
    stream = BytesIO()
    export(table, stream, format)
    export(table, tmp_path / "out.bin", format)
    assert stream.getvalue() == (tmp_path / "out.bin").read_bytes()


def test_the_extension_is_read_without_case(table: pa.Table, tmp_path: Path) -> None:
    export(table, tmp_path / "out.CSV")
    assert (tmp_path / "out.CSV").read_text(encoding="utf-8").startswith('"id"')


@pytest.mark.parametrize(("name", "format"), [("out.xlsx", None), ("out", None), ("out.csv", "html")])
def test_an_unknown_format_lists_those_there_are(
    table: pa.Table, tmp_path: Path, name: str, format: str | None
) -> None:
    with pytest.raises(QueryError, match="Use one of: parquet, csv, jsonl"):
        export(table, tmp_path / name, format)
    assert list(tmp_path.iterdir()) == []


def test_a_stream_needs_a_format(table: pa.Table) -> None:
    with pytest.raises(QueryError, match="Name one of: parquet"):
        export(table, BytesIO())


def test_a_missing_folder_is_a_clear_error(table: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(StoreWriteError, match=r"Cannot write .*nowhere/out\.csv.*: No such file"):
        export(table, tmp_path / "nowhere" / "out.csv")


def test_a_failed_write_leaves_the_old_file(table: pa.Table, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old")
    with pytest.raises(ValueError, match="JSON"):
        export(pa.table({"loss": [np.nan]}), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
