"""Fingerprints of files that are cheap to take: names, sizes and modification times, no contents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from gradstore.data.remote import version_of
from gradstore.store.place import Location, as_url, is_url


def stamp_files(files: Iterable[tuple[str, Location]]) -> str:
    """32 hexadecimal digits over (name, file) pairs; a missing file counts as such. Of what lies in a bucket, its
    version there counts.

    Names are the caller's, relative, so that moving a data set does not change its stamp.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, path in files:
        digest.update(f"{name}\0{_state(path)}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _state(location: Location) -> str:
    try:
        if is_url(location):
            return version_of(as_url(location))
        status = Path(location).stat()
    except FileNotFoundError:
        return "missing"
    return f"{status.st_size} {status.st_mtime_ns}"
