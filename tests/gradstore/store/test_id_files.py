from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradstore.errors import QueryError
from gradstore.store.id_files import read_ids

TEXTS = {
    "a.txt": "x3\nx 1\n\nx2\n",
    "bom.txt": "\ufeffx3\nx 1\nx2\n",
    "a.csv": "rank,id,reason\n1,x3,a\n2,x 1,b\n3,x2,c\n",
    "only.csv": "x3\nx 1\nx2\n",
    "a.json": json.dumps(["x3", "x 1", "x2"]),
    "printed.json": json.dumps({"by": "loss", "rows": [{"id": "x3"}, {"id": "x 1"}, {"id": "x2"}]}),
    "a.jsonl": '{"id": "x3"}\n{"id": "x 1"}\n"x2"\n',
}


@pytest.mark.parametrize("name", TEXTS)
def test_ids_come_in_the_order_of_the_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(TEXTS[name], encoding="utf-8")
    assert read_ids(tmp_path / name) == ["x3", "x 1", "x2"]


def test_a_parquet_file_has_them_in_a_column(tmp_path: Path) -> None:
    pq.write_table(pa.table({"rank": [1, 2], "id": ["b", "a"]}), tmp_path / "ids.parquet")
    assert read_ids(tmp_path / "ids.parquet") == ["b", "a"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "rank,name\n1,x\n", "none is 'id'"),
        ("a.json", "{", "is no list of ids"),
        ("a.json", "7", "it holds no list"),
        ("a.json", '[{"name": "x"}]', "neither an id nor an object with one"),
        ("a.parquet", "PAR1", "is no list of ids"),
        ("a.txt", "\n", "holds no id"),
    ],
)
def test_what_holds_no_ids_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(QueryError, match=message):
        read_ids(tmp_path / name)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="Give a text file"):
        read_ids(tmp_path / "none.txt")
