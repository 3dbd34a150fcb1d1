"""Files of a store that must lie on this machine to be used: the examples' names, weights.

A store in a folder has them there. Those of a store in a bucket are fetched when they are first needed, into the
cache, under a name that begins with their hash: a file that is there is the right one and whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from gradstore.errors import StoreCorruptError
from gradstore.store.commits import FileHash
from gradstore.store.files import make_folder, replacing, write_errors
from gradstore.store.place import Place


def local_file(place: Place, name: str, sha256: str | None, cache: Path) -> Path:
    """A file of `place` on this machine; of a folder the file itself, which is not looked at.

    Args:
        name: relative to the place.
        sha256: what it must hold; a file whose hash nobody knows is fetched every time.
        cache: the store's folder on this machine.

    Raises:
        FileNotFoundError: the place has no such file.
        StoreCorruptError: it holds other bytes.
        StoreWriteError: no room in the cache.
    """
    own = place.local(name)
    if own is not None:
        return own
    kept = cache / "fetched" / f"{(sha256 or 'latest')[:16]}-{name.rsplit('/', 1)[-1]}"
    if sha256 is None or not kept.is_file():
        _fetch(place, name, sha256, kept)
    return kept


def upload(file: Path, place: Place, name: str) -> None:
    """Copy a local file to a place.

    Raises:
        StoreWriteError: the place cannot be written.
    """
    with place.replacing(name) as temporary:
        shutil.copyfile(file, temporary)


def _fetch(place: Place, name: str, sha256: str | None, target: Path) -> None:
    make_folder(target.parent)
    with replacing(target) as temporary:
        with write_errors(target), temporary.open("wb") as file:
            for piece in place.stream(name):
                file.write(piece)
        found = FileHash.read(temporary).sha256
        if sha256 not in (None, found):
            raise StoreCorruptError(
                f"{place.location}/{name} has SHA-256 {found[:12]}…; expected {str(sha256)[:12]}…. "
                "Restore it from a copy, or build the store anew at another place."
            )
