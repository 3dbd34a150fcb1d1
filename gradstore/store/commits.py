"""Commit records: the small files, written last, that say which shards are done.

Why records and not the data files: a file under its final name may still belong to a unit that was killed before
its other files were written. A record is written when all of them are on disk, and holds their hashes. It has no time
in it, so that a build interrupted and resumed equals one that was not, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from gradstore.errors import StoreCorruptError, StoreIncompleteError
from gradstore.store.layout import COMMITS
from gradstore.store.manifest import FORMAT_VERSION, Manifest
from gradstore.store.place import Place
from gradstore.store.sealed import json_text

_RECORD_NAME = re.compile(r"(0|[1-9]\d*)-(0|[1-9]\d*)\.json")


@dataclass(frozen=True)
class FileHash:
    """What a file must hold: its size in bytes and the SHA-256 of its content."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, data: memoryview) -> FileHash:
        return cls(data.nbytes, hashlib.sha256(data).hexdigest())

    @classmethod
    def read(cls, path: Path) -> FileHash:
        """Hash a file, in constant memory."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(file.tell(), digest)

    @classmethod
    def held(cls, place: Place, name: str) -> FileHash:
        """Hash a file of a place, in constant memory; FileNotFoundError where there is none."""
        file = place.local(name)
        if file is not None:
            return cls.read(file)
        digest, size = hashlib.sha256(), 0
        for piece in place.stream(name):
            digest.update(piece)
            size += len(piece)
        return cls(size, digest.hexdigest())


@dataclass(frozen=True)
class CommitRecord:
    """One shard of one checkpoint is done: these rows, in these files, by this code and configuration."""

    checkpoint: int
    shard: int
    rows: tuple[int, int]
    files: Mapping[str, FileHash]
    fingerprint: str
    format_version: int = FORMAT_VERSION

    def to_bytes(self) -> bytes:
        return json_text(asdict(self)).encode()

    @classmethod
    def read(cls, place: Place, checkpoint: int, shard: int) -> CommitRecord:
        """Read a record of the store at `place`.

        Raises:
            FileNotFoundError: there is none.
            StoreCorruptError: it is not a record, or not the bytes that a store writes for it.
        """
        data = place.read(record_name(checkpoint, shard))
        try:
            record = cls._parse(data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreCorruptError(f"the record is unreadable ({error})") from error
        if (record.checkpoint, record.shard) != (checkpoint, shard) or record.to_bytes() != data:
            raise StoreCorruptError("the record is not as it was written")
        return record

    @classmethod
    def _parse(cls, data: bytes) -> CommitRecord:
        document = json.loads(data)
        start, stop = document["rows"]
        files = {name: FileHash(**held) for name, held in document["files"].items()}
        return cls(**{**document, "rows": (start, stop), "files": files})


class CommitTable:
    """Which shards are done, as of the last look at the records. What is read needs no newer one."""

    def __init__(self, place: Place, manifest: Manifest) -> None:
        self._place = place
        self._done = np.zeros((manifest.n_checkpoints, manifest.n_shards), dtype=np.bool_)
        self.refresh()

    def __len__(self) -> int:
        """Shards in all, over all checkpoints."""
        return self._done.size

    def refresh(self) -> None:
        """List the records again: other processes may have written some."""
        done = np.zeros_like(self._done)
        for checkpoint, shard in committed_units(self._place):
            if checkpoint < done.shape[0] and shard < done.shape[1]:
                done[checkpoint, shard] = True
        self._done = done

    def mark(self, checkpoint: int, shard: int, *, done: bool) -> None:
        self._done[checkpoint, shard] = done

    def is_done(self, checkpoint: int, shard: int) -> bool:
        """Looks for the record: another process may have written it, or taken it back."""
        self.mark(checkpoint, shard, done=self._place.exists(record_name(checkpoint, shard)))
        return bool(self._done[checkpoint, shard])

    def n_done(self) -> int:
        if not self._done.all():
            self.refresh()
        return int(self._done.sum())

    def done_shards(self, checkpoint: int) -> list[int]:
        self.refresh()
        return [int(shard) for shard in np.flatnonzero(self._done[checkpoint])]

    def pending(self) -> list[tuple[int, int]]:
        self.refresh()
        return [(int(checkpoint), int(shard)) for checkpoint, shard in np.argwhere(~self._done)]

    def require(self, checkpoint: int, shards: Sequence[int]) -> None:
        """Raises StoreIncompleteError unless all of these shards are done."""
        if not all(self._done[checkpoint, shard] for shard in shards):
            self.refresh()
        missing = [shard for shard in shards if not self._done[checkpoint, shard]]
        if missing:
            raise StoreIncompleteError(self._incomplete(f"; shard {missing[0]} of checkpoint {checkpoint} is not"))

    def require_all(self) -> None:
        """Raises StoreIncompleteError unless every shard is done."""
        if self.n_done() < len(self):
            raise StoreIncompleteError(self._incomplete(""))

    def _incomplete(self, which: str) -> str:
        return (
            f"'{self._place.location}' is not finished: {self._done.sum()} of {len(self)} shards are done{which}. "
            "Run the same build command again: it continues where it stopped."
        )


def record_name(checkpoint: int, shard: int) -> str:
    """Relative to the store."""
    return f"{COMMITS}/{checkpoint}-{shard}.json"


def committed_units(place: Place) -> Iterator[tuple[int, int]]:
    """(checkpoint, shard) of every record: one listing of one folder, no look at any file."""
    for name in place.names(COMMITS):
        if match := _RECORD_NAME.fullmatch(name.removeprefix(f"{COMMITS}/")):
            yield int(match[1]), int(match[2])
