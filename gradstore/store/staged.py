"""A store that is growing, seen as it will be.

An append adds whole shards, which nobody looks for before the manifest speaks of them, and replaces a few files: the
manifest, the Zarr metadata, the examples, and the last shard where it was not full. What it replaces is written into a
staging folder first. This place shows the store as it will be: those files from there, all others where they are. So
whatever works on a store, stages and their workers included, works on one that is to be:

    Store.open("digits.store/build/append-staging")

When all is there, `take_over` puts the staged files into their places, the manifest last. What a reader sees in
between: its manifest is the old or the new one. With the old one it reads rows that the old store had, and these
are in the last shard's files before and after, in the same places with the same bytes: a file is replaced whole,
and a row's bytes depend on nothing but its example (`gradstore.sketcher`) and the machine.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pyarrow as pa

from gradstore.errors import StoreNotFoundError
from gradstore.store.creation import restore_metadata
from gradstore.store.examples import write_examples
from gradstore.store.journal import JOURNAL, Journal
from gradstore.store.layout import COMMITS, EXAMPLES, MANIFEST
from gradstore.store.place import STAGING, Entry, Place, below, place_of
from gradstore.store.store import Store


class StagedPlace:
    """A store's place with the staged files of an append in front; see the module."""

    def __init__(self, base: Place) -> None:
        """Of the append that is under way at `base`.

        Raises:
            StoreNotFoundError: there is none.
        """
        journal = Journal.read(base)
        if journal is None:
            raise StoreNotFoundError(f"Nothing is being appended to the store '{base.location}' (no {JOURNAL}).")
        self.base, self._staged = base, frozenset(journal.staged)

    @property
    def location(self) -> str:
        return below(self.base.location, STAGING)

    def at(self, name: str) -> str:
        """Where in the store's own place a file lies."""
        return f"{STAGING}/{name}" if name in self._staged else name

    def local(self, name: str = "") -> Path | None:
        return self.base.local(self.at(name))

    def read(self, name: str) -> bytes:
        return self.base.read(self.at(name))

    def read_many(self, names: Iterable[str]) -> Iterator[bytes]:
        return self.base.read_many(map(self.at, names))

    def stream(self, name: str) -> Iterator[bytes]:
        return self.base.stream(self.at(name))

    def ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return self.base.ranges(self.at(name), ranges)

    def write(self, name: str, data: bytes | memoryview) -> None:
        self.base.write(self.at(name), data)

    def write_new(self, name: str, data: bytes | memoryview) -> bool:
        return self.base.write_new(self.at(name), data)

    def replacing(self, name: str) -> AbstractContextManager[Path]:
        return self.base.replacing(self.at(name))

    def remove(self, name: str) -> None:
        self.base.remove(self.at(name))

    def entry(self, name: str) -> Entry | None:
        found = self.base.entry(self.at(name))
        return None if found is None else dataclasses.replace(found, name=name)

    def exists(self, name: str) -> bool:
        return self.base.exists(self.at(name))

    def names(self, folder: str = "", *, folders: bool = False) -> Iterator[str]:
        prefix = f"{STAGING}/"
        own = (name for name in self.base.names(folder, folders=folders) if name not in self._staged)
        staged = self.base.names(f"{prefix}{folder}".rstrip("/"))
        return iter({*own, *(name.removeprefix(prefix) for name in staged)})

    def entries(self, folder: str = "") -> Iterator[Entry]:
        for entry in self.base.entries(folder):
            if entry.name not in self._staged:
                yield entry


def begin(base: Place, examples: Iterable[pa.RecordBatch]) -> Store:
    """The store that is to be, without the rows that are to come; as it is where it was begun before.

    Args:
        examples: all of the grown store's, as `Store.create` takes them; read where they have changed.
    """
    place, journal = StagedPlace(base), Journal.read(base)
    if not place.exists(MANIFEST):
        assert journal is not None
        digest = journal.manifest.examples_sha256
        if EXAMPLES in journal.staged:
            digest = write_examples(place, EXAMPLES, examples, journal.manifest.n_examples)
        restore_metadata(place, journal.manifest)
        whole = dataclasses.replace(journal.manifest, examples_sha256=digest)
        place.write_new(MANIFEST, whole.to_json().encode())
    return Store.open(place.location)


def take_over(base: Place) -> None:
    """Make the store what it is to be, and end the append; done again, it finishes what was begun.

    The staged store must be complete. Data before records, all before the manifest, the journal last.
    """
    journal = Journal.read(base)
    assert journal is not None
    place = StagedPlace(base)
    if place.exists(MANIFEST):
        for name in sorted(journal.staged, key=_turn):
            if place.exists(name):
                _copy(base, place.at(name), name)
        for name in sorted(journal.staged, key=_turn):  # the manifest last: until then this can be done again
            place.remove(name)
    base.remove(JOURNAL)
    _remove_folders(base)


def _turn(name: str) -> tuple[int, str]:
    order = {MANIFEST: 3, EXAMPLES: 2, "zarr.json": 2}
    return order.get(name, 1 if name.startswith(f"{COMMITS}/") else 0), name


def _copy(base: Place, source: str, target: str) -> None:
    """A file of any size, in constant memory."""
    with base.replacing(target) as temporary, temporary.open("wb") as file:
        for piece in base.stream(source):
            file.write(piece)


def _remove_folders(base: Place) -> None:
    folder = base.local(STAGING)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def grown(base: Place) -> Store:
    """The store that is to be."""
    return Store.open(place_of(below(base.location, STAGING)).location)
