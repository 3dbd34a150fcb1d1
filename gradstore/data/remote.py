"""Data in a bucket: rows of a `.npy` file where they lie, every other format as a copy on this machine.

Why a copy: archives, gzip files and images have no random access, or a request for each would take longer than the
model. A copy is made once a machine, into the cache, under what the bucket calls the version of its content (ETag):
when the data change, the old copy is not used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gradstore.errors import SourceNotFoundError
from gradstore.store.files import make_folder, replacing, write_errors
from gradstore.store.place import Entry, Location, Place, as_url, cache_folder, is_url, place_of

_COMPLETE = ".complete"


@dataclass(frozen=True)
class RemoteFile:
    """An object that is read by ranges."""

    url: str
    n_bytes: int

    @classmethod
    def at(cls, url: str) -> RemoteFile:
        """The object as it is now.

        Raises:
            SourceNotFoundError: there is none.
        """
        place, name = _placed(url)
        return cls(url, _existing(place, name, url).bytes)

    def __str__(self) -> str:
        return self.url

    def read(self, start: int, stop: int) -> bytes:
        """Bytes start to stop; fewer where the object ends before."""
        return self.ranges([(start, min(stop, self.n_bytes))])[0]

    def ranges(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The same of several ranges, asked for at once."""
        place, name = _placed(self.url)
        return place.ranges(name, ranges)


def version_of(url: str) -> str:
    """What tells whether the data at a URL have changed: the version of an object, or of all those below a prefix.

    Raises:
        SourceNotFoundError: there is nothing.
        PlaceError: the bucket cannot be reached.
    """
    place, name = _placed(url)
    entry = place.entry(name)
    return _digest([entry] if entry is not None else _below(url))


def fetched(url: str) -> Path:
    """A copy on this machine, made if it is not there: of an object, or of all those below a prefix.

    Raises:
        SourceNotFoundError: there is nothing.
        StoreWriteError: no room in the cache.
    """
    place, name = _placed(url)
    entry = place.entry(name)
    entries = [entry] if entry is not None else _below(url)
    root = cache_folder(url) / _digest(entries)
    if entry is not None:
        return _copy(place, name, root / name)
    if not (root / _COMPLETE).is_file():
        for found in entries:
            _copy(place_of(url), found.name, root / "data" / found.name)
        (root / _COMPLETE).touch()
    return root / "data"


def on_this_machine(location: Location) -> Path:
    """A file that must be at hand: itself, or the copy of one in a bucket."""
    return fetched(as_url(location)) if is_url(location) else Path(location)


def _copy(place: Place, name: str, target: Path) -> Path:
    if not target.is_file():
        make_folder(target.parent)
        with replacing(target) as temporary, write_errors(target), temporary.open("wb") as file:
            for piece in place.stream(name):
                file.write(piece)
    return target


def _placed(url: str) -> tuple[Place, str]:
    """The folder that an object lies in, and its name there."""
    folder, _, name = url.rpartition("/")
    return place_of(folder), name


def _existing(place: Place, name: str, url: str) -> Entry:
    entry = place.entry(name)
    if entry is None:
        raise SourceNotFoundError(f"no data at '{url}'. Give an object or a prefix that is there.")
    return entry


def _below(url: str) -> list[Entry]:
    entries = sorted(place_of(url).entries(), key=lambda entry: entry.name)
    if not entries:
        raise SourceNotFoundError(f"no data at '{url}'. Give an object or a prefix that is there.")
    return entries


def _digest(entries: Sequence[Entry]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for entry in entries:
        digest.update(f"{entry.name}\0{entry.bytes} {entry.version or entry.modified}\0".encode())
    return digest.hexdigest()
