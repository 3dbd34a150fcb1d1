"""Files that are wholly there or not there at all.

A file is written under a temporary name, synced, renamed, and its folder synced: after a crash the final name
holds either nothing or every byte. What a killed run leaves behind is a temporary file, recognisable by its name.

Why the name carries host and process: on a file system that several machines share, "temporary" alone does not
say whether somebody is still writing. A temporary file is abandoned when its process is gone from this host, or
when nobody has touched it for an hour (one write takes seconds).
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from gradstore.errors import GradstoreError, StoreWriteError
from gradstore.store.processes import started

ABANDONED_AFTER_S = 3600.0

_TEMP_NAME = re.compile(r"\.tmp-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}-.+")
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK})
_NO_PERMISSION = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def write_atomically(path: Path, data: bytes | memoryview) -> None:
    """Write `data` to `path`; on return it has reached the disk.

    Raises:
        StoreWriteError: no space, no permission, or another failure of the file system.
    """
    with write_errors(path), replacing(path) as temp:
        temp.write_bytes(data)


def create_atomically(path: Path, data: bytes | memoryview) -> bool:
    """Write `data` to `path` if nothing is there; of several processes at once, one. False where something is.

    A hard link is what a file system creates under a name that must be new, with its content whole. Where there are
    no hard links (some mounts of Windows shares and of buckets) the file is looked for and then renamed into place:
    two writers in the same instant may then both be told that they were first.

    Raises:
        StoreWriteError: as for `write_atomically`.
    """
    temp = path.with_name(_temp_name(path.name))
    with write_errors(path):
        try:
            temp.write_bytes(data)
            _sync(temp)
            created = _link(temp, path)
            sync_folder(path.parent)
        finally:
            temp.unlink(missing_ok=True)
    return created


def _link(temp: Path, path: Path) -> bool:
    try:
        path.hardlink_to(temp)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            return False
        temp.replace(path)
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write; when the block ends without an error, it is synced and becomes `path`."""
    temp = path.with_name(_temp_name(path.name))
    try:
        yield temp
        with write_errors(path):
            _sync(temp)
            temp.replace(path)
            sync_folder(path.parent)
    finally:
        with write_errors(path):
            temp.unlink(missing_ok=True)


@contextmanager
def write_errors(path: Path | str) -> Iterator[None]:
    """Turn the file system's errors into StoreWriteError, with what to do about them."""
    try:
        yield
    except GradstoreError:
        raise
    except OSError as error:
        refusal = StoreWriteError(f"Cannot write {path}: {error.strerror or error}. {_advice(error.errno)}")
        refusal.errno = error.errno
        raise refusal from error


def make_folder(path: Path) -> None:
    """Create a folder and its parents; its name has reached the disk on return."""
    with write_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames and removals in a folder survive a crash."""
    try:
        _sync(path)
    except OSError as error:
        # Some network file systems cannot sync a folder and say so with EINVAL; they sync names by themselves.
        if error.errno != errno.EINVAL:
            raise


def temporary_files(folders: Iterable[Path]) -> list[Path]:
    """Temporary files lying in these folders (not below them), sorted."""
    present = (folder for folder in folders if folder.is_dir())
    return sorted(file for folder in present for file in folder.iterdir() if is_temporary(file.name))


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that is being written, or was when its run was killed."""
    return _TEMP_NAME.fullmatch(name) is not None


def is_abandoned(file: Path) -> bool:
    """Whether nobody is writing this temporary file any more."""
    match = _TEMP_NAME.fullmatch(file.name)
    if match is None:
        return False
    if match["host"] == _host() and started(int(match["pid"])) is None:
        return True
    try:
        return time.time() - file.stat().st_mtime > ABANDONED_AFTER_S
    except FileNotFoundError:  # its writer has just finished
        return False


def _temp_name(final: str) -> str:
    return f".tmp-{_host()}-{os.getpid()}-{secrets.token_hex(4)}-{final}"


def _host() -> str:
    return hashlib.blake2b(socket.gethostname().encode(), digest_size=4).hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _advice(code: int | None) -> str:
    if code in _NO_SPACE:
        return "Free space, then run the same command: everything committed is kept."
    if code in _NO_PERMISSION:
        return "Make the folder writable, then run the same command: everything committed is kept."
    return "Check the file system, then run the same command: everything committed is kept."
