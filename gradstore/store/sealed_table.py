"""Parquet files that carry their own hash: whichever byte of such a file changes, its reader knows.

Parquet's page checksums cover the pages and nothing else: not the footer, where the number of rows and the schema
stand. So the footer gets one more entry, the SHA-256 of the whole file as it is with zeros in the entry's place. Any
Parquet reader opens such a file and ignores the entry. Why within the file and not beside it: one file is replaced
at once, two are not.
"""

from __future__ import annotations

import hashlib
import io
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from gradstore.errors import StoreCorruptError

_KEY = "gradstore.sha256"
_BLANK = b"0" * 64
# Thrift's compact protocol: a key of 16 bytes is followed by "next field, a string" and its length.
_BEFORE_HASH = _KEY.encode() + bytes([0x18, len(_BLANK)])
_MAGIC = b"PAR1"
_BLOCK = 1 << 20


def write_sealed_table(table: pa.Table, stream: BinaryIO) -> None:
    """Write a table as Parquet with its hash in it, to a stream that can be read and written anywhere."""
    with pq.ParquetWriter(stream, table.schema, write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_KEY: _BLANK.decode()})
    place = _place_of_hash(stream)
    if place is None:
        raise RuntimeError(f"pyarrow {pa.__version__} lays a Parquet footer out in another way than was expected.")
    digest = _hash_without(stream, place)
    stream.seek(place)
    stream.write(digest)


def sealed_table_bytes(table: pa.Table) -> bytes:
    """The same as bytes, for a table that is small."""
    stream = io.BytesIO()
    write_sealed_table(table, stream)
    return stream.getvalue()


def require_sealed_table(stream: BinaryIO, name: str) -> None:
    """Hold a file against the hash in it; `name` is the file's, for the message.

    Raises:
        StoreCorruptError: it has none, or is not as it was written.
    """
    place = _place_of_hash(stream)
    if place is None:
        raise StoreCorruptError(f"{name} is not as it was written: the hash that it was written with is not in it.")
    digest = _hash_without(stream, place)
    stream.seek(place)
    if stream.read(len(digest)) != digest:
        raise StoreCorruptError(f"{name} is not as it was written: the hash in it is of another file.")


def _place_of_hash(stream: BinaryIO) -> int | None:
    """Where the 64 digits begin; None where there are none."""
    size = stream.seek(0, io.SEEK_END)
    if size < 2 * len(_MAGIC) + 4:
        return None
    stream.seek(size - 8)
    end = stream.read(8)
    start = size - 8 - int.from_bytes(end[:4], "little")
    if end[4:] != _MAGIC or start < 0:
        return None
    stream.seek(start)
    found = stream.read(size - start).find(_BEFORE_HASH)
    return None if found < 0 else start + found + len(_BEFORE_HASH)


def _hash_without(stream: BinaryIO, place: int) -> bytes:
    """64 hexadecimal digits over the file with zeros at `place`; in constant memory."""
    digest = hashlib.sha256()
    stream.seek(0)
    while block := stream.read(min(_BLOCK, place - stream.tell())):
        digest.update(block)
    digest.update(_BLANK)
    stream.seek(place + len(_BLANK))
    while block := stream.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest().encode()
