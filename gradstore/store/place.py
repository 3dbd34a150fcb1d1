"""Where a store's files lie: a folder, or a bucket of an object store. Everything of a store goes through here.

What every place promises, and `gradstore.testing.place_kit` tests:

- A name holds nothing or a whole file, and what `write` has returned from is there after a crash.
- Of several writers of a new name exactly one is told that it was the first; readers see all that it wrote.
- A listing shows every file that was there when it began.

Names are relative to the place, with slashes: `commits/0-0.json`. What only a folder can do, mapping a file into
memory, is asked for by `local`, which gives the file itself, or None.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from gradstore.errors import StoreError

STAGING = "build/append-staging"
"""In a store: what an append has ready."""

Location = str | Path
"""A folder, or the URL of a prefix in a bucket: `s3://bucket/prefix`, also gs and az."""

# One slash as well: that is what a Path leaves of two.
_URL = re.compile(r"(?P<scheme>s3a?|gs|az|azure|abfss?)://?(?P<rest>[^/].*)")


@dataclass(frozen=True)
class Entry:
    """A file, as a listing shows it."""

    name: str
    bytes: int
    modified: float
    """seconds since 1970, by the place's clock"""
    version: str = ""
    """changes when the content does, where the place tells: the ETag of an object"""


@runtime_checkable
class Place(Protocol):
    """A folder or a bucket. Implementations pickle by their location: `place_of(place.location)` is the same place.

    Whatever reads raises FileNotFoundError for a name that is not there, and PlaceError where the place cannot be
    reached; whatever writes raises StoreWriteError.
    """

    @property
    def location(self) -> str:
        """For people, and for `place_of`."""

    def local(self, name: str = "") -> Path | None:
        """The file itself, there or not, in a folder; None in a bucket."""

    def read(self, name: str) -> bytes:
        """A whole small file."""

    def read_many(self, names: Iterable[str]) -> Iterator[bytes]:
        """Several small files, in order; faster than one by one where each costs a journey."""

    def stream(self, name: str) -> Iterator[bytes]:
        """A file of any size, a piece of a few megabytes at a time."""

    def ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Bytes start to stop of each range; fewer where the file ends before."""

    def write(self, name: str, data: bytes | memoryview) -> None:
        """Make this the content of `name`, whatever it was."""

    def write_new(self, name: str, data: bytes | memoryview) -> bool:
        """Write a name that is not there; False, and nothing changed, where it is."""

    def replacing(self, name: str) -> AbstractContextManager[Path]:
        """A local path to write; when the block ends without an error, it becomes the content of `name`."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def entry(self, name: str) -> Entry | None:
        """One file as a listing would show it; None where there is none."""

    def exists(self, name: str) -> bool: ...

    def names(self, folder: str = "", *, folders: bool = False) -> Iterator[str]:
        """Files in a folder and not below it, relative to the place, in no order; none where there is no folder.

        Args:
            folders: also the folders in it.
        """

    def entries(self, folder: str = "") -> Iterator[Entry]:
        """Every file in and below a folder, in no order."""


def place_of(location: Location) -> Place:
    """The place that a path or a URL names; nothing need be there yet.

    What ends in `STAGING` is a store that is growing, as it will be (`gradstore.store.staged`).

    Raises:
        StoreError: a URL of another kind.
        StoreNotFoundError: a staging folder in which nothing is staged.
        MissingExtraError: a bucket, and the package that reads buckets is not installed.
    """
    _require_known(location)
    if (base := _grown(location)) != location:
        from gradstore.store.staged import StagedPlace

        return StagedPlace(place_of(base))
    if is_url(location):
        from gradstore.store.bucket import Bucket

        return Bucket(as_url(location))
    from gradstore.store.folder import Folder

    return Folder(Path(location))


def is_url(location: Location) -> bool:
    """Whether a location is in a bucket.

    >>> is_url("s3://bucket/digits.store"), is_url("digits.store"), is_url(Path("s3://bucket/digits.store"))
    (True, False, True)
    """
    return _URL.fullmatch(str(location)) is not None


def as_url(location: Location) -> str:
    """The URL of a location in a bucket, without a slash at its end.

    >>> as_url(Path("s3://bucket/digits.store/"))
    's3://bucket/digits.store'
    """
    match = _URL.fullmatch(str(location))
    assert match is not None
    return f"{match['scheme']}://{match['rest'].rstrip('/')}"


def as_location(location: Location) -> Location:
    """A folder as a Path, a bucket as its URL.

    Raises:
        StoreError: a URL of another kind.
    """
    _require_known(location)
    return as_url(location) if is_url(location) else Path(location)


def _require_known(location: Location) -> None:
    if "://" in str(location) and not is_url(location):
        raise StoreError(
            f"'{location}' is neither a folder nor in a bucket that gradstore knows. Give a path, or a URL that begins "
            "with s3://, gs:// or az://; another service that speaks S3 is s3:// with AWS_ENDPOINT_URL set."
        )


def local_folder(location: Location) -> Path:
    """Where what belongs to a location is kept on this machine: the folder itself, or one of the cache."""
    location = _grown(location)
    return cache_folder(as_url(location)) if is_url(location) else Path(location)


def _grown(location: Location) -> Location:
    """The store that is growing, where a location is that of what an append has ready."""
    text = str(location).rstrip("/")
    return text.removesuffix(f"/{STAGING}") if text.endswith(f"/{STAGING}") else location


def below(location: Location, name: str) -> str:
    """The location of something inside another: a folder's file, a bucket's object."""
    return f"{as_url(location)}/{name}" if is_url(location) else str(Path(location) / name)


def name_of(location: Location) -> str:
    """The last part of a location."""
    return as_url(location).rsplit("/", 1)[-1] if is_url(location) else Path(location).resolve().name


def cache_folder(url: str) -> Path:
    """Where files that belong to something in a bucket are kept on this machine.

    `$GRADSTORE_CACHE`, else the platform's cache folder; losing it loses time, and nothing else.
    """
    given = os.environ.get("GRADSTORE_CACHE")
    if given is None:
        import platformdirs

        given = platformdirs.user_cache_dir("gradstore")
    digest = hashlib.blake2b(url.encode(), digest_size=8).hexdigest()
    return Path(given).absolute() / f"{name_of(url)}-{digest}"
