"""A folder as a place for a store: temporary file, sync, rename, sync of the folder (`gradstore.store.files`)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from gradstore.errors import StoreError
from gradstore.store.files import create_atomically, make_folder, replacing, sync_folder, write_atomically, write_errors
from gradstore.store.place import Entry

_PIECE_BYTES = 1 << 22


class Folder:
    """A place on a file system of this machine, or one that it mounts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __repr__(self) -> str:
        return f"Folder({str(self._path)!r})"

    @property
    def location(self) -> str:
        return str(self._path)

    def local(self, name: str = "") -> Path:
        return self._path / name

    def read(self, name: str) -> bytes:
        return self.local(name).read_bytes()

    def read_many(self, names: Iterable[str]) -> Iterator[bytes]:
        return (self.read(name) for name in names)

    def stream(self, name: str) -> Iterator[bytes]:
        with self.local(name).open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                yield piece

    def ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        with self.local(name).open("rb", buffering=0) as file:
            return [os.pread(file.fileno(), stop - start, start) for start, stop in ranges]

    def write(self, name: str, data: bytes | memoryview) -> None:
        write_atomically(self._with_folder(name), data)

    def write_new(self, name: str, data: bytes | memoryview) -> bool:
        return create_atomically(self._with_folder(name), data)

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        with replacing(self._with_folder(name)) as temporary:
            yield temporary

    def remove(self, name: str) -> None:
        file = self.local(name)
        with write_errors(file):
            if file.exists():
                file.unlink(missing_ok=True)
                sync_folder(file.parent)

    def entry(self, name: str) -> Entry | None:
        file = self.local(name)
        return Entry(name, (status := file.stat()).st_size, status.st_mtime) if file.is_file() else None

    def exists(self, name: str) -> bool:
        return self.local(name).is_file()

    def names(self, folder: str = "", *, folders: bool = False) -> Iterator[str]:
        path = self.local(folder)
        if path.exists() and not path.is_dir():
            raise StoreError(f"'{path}' is a file; a store is a folder. Use another --store path.")
        prefix = f"{folder}/" if folder else ""
        if path.is_dir():
            with os.scandir(path) as entries:
                yield from [prefix + entry.name for entry in entries if folders or entry.is_file()]

    def entries(self, folder: str = "") -> Iterator[Entry]:
        for file in self.local(folder).rglob("*"):
            try:
                status = file.stat()
            except FileNotFoundError:  # a temporary file whose writer has just finished
                continue
            if file.is_file():
                yield Entry(file.relative_to(self._path).as_posix(), status.st_size, status.st_mtime)

    def _with_folder(self, name: str) -> Path:
        """The file of a name, its folder made where it is missing."""
        file = self.local(name)
        if not file.parent.is_dir():
            make_folder(file.parent)
        return file
