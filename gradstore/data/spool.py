"""Packed files are unpacked once a process, into a file without a name, and then read like any other.

Why: gzip and deflate have no random access, and a data set must not be held in memory. Where the system has
/proc the file never has a name of its own, so that not even `kill -9` leaves gigabytes behind.
"""

from __future__ import annotations

import atexit
import gzip
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BufferedIOBase
from pathlib import Path
from typing import IO

from gradstore.errors import CorruptExampleError, SourceError

Stream = IO[bytes] | BufferedIOBase
_COPY_BYTES = 1 << 20


@dataclass(frozen=True)
class Packed:
    """A gzip file, or one `member` of a zip archive."""

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}: {self.member}"

    @contextmanager
    def open(self) -> Iterator[Stream]:
        """The unpacked bytes as a stream.

        Raises:
            CorruptExampleError: the packed bytes are cut short or damaged.
            SourceError: the file system fails, here or in whoever reads the stream.
        """
        try:
            if self.member is None:
                with gzip.open(self.path) as stream:
                    yield stream
            else:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as member:
                    yield member
        except (OSError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            raise _explained(self, error) from error

    def unpacked(self) -> Path:
        """A plain file with the same bytes; it lives as long as the process.

        Raises:
            CorruptExampleError: the packed bytes are cut short or damaged.
            SourceError: the temporary folder cannot hold them.
        """
        status = self.path.stat()
        return _spool(self, (status.st_size, status.st_mtime_ns))


def is_gzip(path: Path) -> bool:
    """Whether the file starts as gzip does, whatever it is called."""
    with path.open("rb") as file:
        return file.read(2) == b"\x1f\x8b"


@cache
def _spool(packed: Packed, stamp: tuple[int, int]) -> Path:  # `stamp` makes a changed file a new entry
    target, path = _temporary_file()
    atexit.register(target.close)
    with packed.open() as source:
        shutil.copyfileobj(source, target, _COPY_BYTES)
        target.flush()
    return path


def _explained(packed: Packed, error: Exception) -> SourceError:
    if getattr(error, "errno", None) is None:  # the file system always gives a number, a decoder never does
        return CorruptExampleError(
            f"'{packed}' is cut short or damaged: {error}. Expected a whole packed file: fetch or write it again."
        )
    return SourceError(
        f"'{packed}' could not be unpacked into '{tempfile.gettempdir()}': {error}. "
        "Unpack it yourself, or set TMPDIR to a folder with enough room."
    )


def _temporary_file() -> tuple[IO[bytes], Path]:
    """A file that goes with the process, and a path at which it can be opened again and again."""
    nameless = tempfile.TemporaryFile()  # noqa: SIM115 - open until the process ends
    path = Path(f"/proc/self/fd/{nameless.fileno()}")
    if path.exists():
        return nameless, path
    nameless.close()
    named = tempfile.NamedTemporaryFile()  # noqa: SIM115
    return named, Path(named.name)
