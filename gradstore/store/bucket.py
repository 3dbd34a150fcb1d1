"""A bucket of an object store as a place for a store: S3 and what speaks like it, Google's and Azure's.

What a bucket gives by itself: an object is there whole or not at all, and a listing shows every object that was
written. A name is made new by a conditional put (`If-None-Match: *`), of which the service lets one through.

Why obstore: it is faster than s3fs and pins no other package. Credentials, region and endpoint come from the
environment, as the service's own tools read them: AWS_ACCESS_KEY_ID, the role of a machine of AWS, AWS_ENDPOINT_URL for
another service, …
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from gradstore.errors import GradstoreError, MissingExtraError, PlaceError, StoreWriteError
from gradstore.store.place import Entry

_PIECE_BYTES = 1 << 22
_AT_ONCE = 16
_LISTED = 1000
_TIMEOUT = "300s"  # of one request: a shard over a slow line


class Bucket:
    """A place at `s3://bucket/prefix`, `gs://…` or `az://…`."""

    def __init__(self, url: str) -> None:
        self.location = url

    def __repr__(self) -> str:
        return f"Bucket({self.location!r})"

    def __reduce__(self) -> tuple[type[Bucket], tuple[str]]:
        return Bucket, (self.location,)

    def local(self, name: str = "") -> None:
        return None

    def read(self, name: str) -> bytes:
        with self._reading(name) as obstore:
            return bytes(obstore.get(self._objects, name).bytes())

    def read_many(self, names: Iterable[str]) -> Iterator[bytes]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            yield from pool.map(self.read, names)

    def stream(self, name: str) -> Iterator[bytes]:
        with self._reading(name) as obstore:
            for piece in obstore.get(self._objects, name).stream(min_chunk_size=_PIECE_BYTES):
                yield bytes(piece)

    def ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """One request a range: obstore's own `get_ranges` (0.12) brings the process down where an object is shorter
        than was expected.
        """
        if len(ranges) == 1:
            return [self._range(name, *ranges[0])]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(lambda span: self._range(name, *span), ranges))

    def _range(self, name: str, start: int, stop: int) -> bytes:
        try:
            with self._reading(name) as obstore:
                return bytes(obstore.get_range(self._objects, name, start=start, end=stop))
        except PlaceError:  # to the service a range that begins behind the end is an error
            found = self.entry(name)
            if found is None or start < found.bytes:
                raise
            return b""

    def write(self, name: str, data: bytes | memoryview) -> None:
        with self._writing(name) as obstore:
            obstore.put(self._objects, name, data)

    def write_new(self, name: str, data: bytes | memoryview) -> bool:
        with self._writing(name) as obstore:
            try:
                obstore.put(self._objects, name, data, mode="create")
            except obstore.exceptions.AlreadyExistsError:
                return False
        return True

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="gradstore-") as folder:
            temporary = Path(folder) / name.rsplit("/", 1)[-1]
            yield temporary
            with self._writing(name) as obstore:
                obstore.put(self._objects, name, temporary)

    def remove(self, name: str) -> None:
        with self._writing(name) as obstore, suppress(FileNotFoundError):
            obstore.delete(self._objects, name)

    def entry(self, name: str) -> Entry | None:
        with self._reading(name) as obstore:
            try:
                return _entry(obstore.head(self._objects, name))
            except FileNotFoundError:
                return None

    def exists(self, name: str) -> bool:
        return self.entry(name) is not None

    def names(self, folder: str = "", *, folders: bool = False) -> Iterator[str]:
        with self._reading(folder) as obstore:
            found = obstore.list_with_delimiter(self._objects, folder or None)
        inside = [str(prefix).rstrip("/") for prefix in found["common_prefixes"]] if folders else []
        return iter([*(str(meta["path"]) for meta in found["objects"]), *inside])

    def entries(self, folder: str = "") -> Iterator[Entry]:
        with self._reading(folder) as obstore:
            for page in obstore.list(self._objects, folder or None, chunk_size=_LISTED):
                yield from map(_entry, page)

    @cached_property
    def _objects(self) -> Any:
        from obstore.store import from_url

        return from_url(self.location, client_options={"allow_http": _allows_http(), "timeout": _TIMEOUT})

    @contextmanager
    def _reading(self, name: str) -> Iterator[Any]:
        """The library, its errors turned into ours; FileNotFoundError passes."""
        obstore = _obstore()
        try:
            yield obstore
        except (GradstoreError, FileNotFoundError):
            raise
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            raise PlaceError(f"Cannot read {self._named(name)}: {_first_line(error)}. {_ADVICE}") from error

    @contextmanager
    def _writing(self, name: str) -> Iterator[Any]:
        obstore = _obstore()
        try:
            yield obstore
        except GradstoreError:
            raise
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            raise StoreWriteError(
                f"Cannot write {self._named(name)}: {_first_line(error)}. {_ADVICE} Everything committed is kept."
            ) from error

    def _named(self, name: str) -> str:
        return f"{self.location}/{name}" if name else self.location


_ADVICE = (
    "Check the network, the bucket's name, and credentials and endpoint in the environment (AWS_ACCESS_KEY_ID, "
    "AWS_REGION, AWS_ENDPOINT_URL, …), then run the same command."
)


def _obstore() -> Any:
    try:
        import obstore
        import obstore.exceptions
    except ImportError as error:
        raise MissingExtraError(
            "Stores and data in buckets need packages that are not installed. Run: pip install 'gradstore[s3]'"
        ) from error
    return obstore


def _entry(meta: Mapping[str, Any]) -> Entry:
    return Entry(str(meta["path"]), int(meta["size"]), meta["last_modified"].timestamp(), str(meta["e_tag"] or ""))


def _allows_http() -> bool:
    """Plain HTTP only where the environment asks for it."""
    names = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "GOOGLE_BASE_URL")
    return any(os.environ.get(name, "").startswith("http://") for name in names)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
