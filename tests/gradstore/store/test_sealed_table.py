from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gradstore.errors import StoreCorruptError
from gradstore.store.sealed_table import require_sealed_table, sealed_table_bytes, write_sealed_table

TABLE = pa.table({"row": [3, 5, 8], "id": ["a", "b", "c"]})


def test_any_parquet_reader_opens_it() -> None:
    assert pq.read_table(io.BytesIO(sealed_table_bytes(TABLE))) == TABLE


def test_a_table_as_it_was_written_passes(tmp_path: Path) -> None:
    with (tmp_path / "t.parquet").open("w+b") as stream:
        write_sealed_table(TABLE, stream)
        require_sealed_table(stream, "t.parquet")


def test_every_flipped_byte_is_found() -> None:
    whole = sealed_table_bytes(TABLE)
    for place in range(len(whole)):
        torn = bytearray(whole)
        torn[place] ^= 1 << place % 8
        with pytest.raises(StoreCorruptError, match=r"t\.parquet is not as it was written"):
            require_sealed_table(io.BytesIO(torn), "t.parquet")


@pytest.mark.parametrize("n_bytes", [0, 3, 20, 200])
def test_a_torn_file_is_found(n_bytes: int) -> None:
    with pytest.raises(StoreCorruptError):
        require_sealed_table(io.BytesIO(sealed_table_bytes(TABLE)[:n_bytes]), "t.parquet")


def test_a_table_without_a_hash_is_none_of_ours() -> None:
    stream = io.BytesIO()
    pq.write_table(TABLE, stream)
    with pytest.raises(StoreCorruptError, match="is not in it"):
        require_sealed_table(stream, "t.parquet")
