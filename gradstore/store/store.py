"""The store: write a shard once, read rows by range or by number.

A shard is R consecutive examples at one checkpoint. One unit of work hands over one shard; the store writes it as
whole files, one an array, and then its commit record. Nobody else writes those files, so units may run anywhere, in
any order, any number at once. What the records say is all that counts as done.

How rows are read: `gradstore.store.reading`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from gradstore.errors import StoreMismatchError, StoreNotFoundError
from gradstore.store import layout
from gradstore.store.chunks import ShardRows, check_finite, encode
from gradstore.store.commits import CommitRecord, FileHash, record_name
from gradstore.store.creation import complete_skeleton, read_manifest, require_same_settings, restore_metadata
from gradstore.store.files import is_abandoned, temporary_files, write_errors
from gradstore.store.forgotten import forget, remember
from gradstore.store.manifest import Manifest
from gradstore.store.place import Location, Place, place_of
from gradstore.store.reading import StoreReader


class Store(StoreReader):
    """A gradient store on disk. Make one with `create` or `open`; it may be pickled (it is opened again)."""

    @classmethod
    def create(cls, location: Location, manifest: Manifest, examples: Iterable[pa.RecordBatch]) -> Store:
        """Make a store, or open the one that is there when it was made by the same settings.

        Args:
            location: a folder, or the URL of a prefix in a bucket; see `gradstore.store.place`.
            manifest: what it shall be.
            examples: batches with columns id (string), label (int32, may be null) and path (string, may be null),
                `manifest.n_examples` rows in all; not touched when the store is there already.

        Raises:
            StoreMismatchError: a store made by other settings is there; shows both values of each.
            StoreError: the folder holds something else.
            ShapeError: `examples` has another number of rows than the manifest says.
            StoreWriteError: disk full, read-only, no permission.
        """
        place = place_of(location)
        complete_skeleton(place, manifest, examples)
        store = cls.open(location)
        require_same_settings(place, store.manifest, manifest)
        restore_metadata(place, store.manifest)
        store.remove_leftovers()
        return store

    @classmethod
    def open(cls, location: Location) -> Store:
        """Open a store, complete or not.

        Raises:
            StoreNotFoundError: there is none.
            StoreFormatError: it has a format that this version does not read.
            StoreCorruptError: its manifest is damaged.
            PlaceError: its bucket cannot be reached.
        """
        place = place_of(location)
        try:
            return cls(place, read_manifest(place))
        except (FileNotFoundError, NotADirectoryError):
            raise _not_found(place) from None

    def __reduce__(self) -> tuple[Callable[[str, str], Store], tuple[str, str]]:
        return _reopened, (self.location, self.parameters)

    def __repr__(self) -> str:
        size = f"{self.n_examples} examples x {self.n_checkpoints} checkpoints"
        return f"Store({self.location!r}: {size}, gradients of {self.parameters!r})"

    # Writing

    def write_shard(self, checkpoint: int, shard: int, rows: ShardRows | Iterable[ShardRows]) -> None:
        """Write one shard, of all sets, and commit it; on return it has reached the disk. A committed one stays.

        Args:
            rows: the shard's examples, at once or in consecutive parts, made by what the manifest says.

        Raises:
            ShapeError: `rows` does not have the shard's shape.
            TaskError: `rows` holds NaN or infinity; names the examples.
            StoreMismatchError: another writer has just committed the shard, with other bytes.
            StoreWriteError: disk full, read-only, no permission; nothing is committed then.
        """
        if self.is_committed(checkpoint, shard):
            return
        span = self.shard_range(shard)
        chunks = encode([rows] if isinstance(rows, ShardRows) else rows, self.manifest, len(span))
        check_finite(chunks, len(span), checkpoint, lambda: self.ids(span.start, span.stop))
        files = {}
        with ThreadPoolExecutor(1, "gradstore-hash") as hashing:  # while the disk is waited for
            for array, chunk in chunks.items():
                name = array.file_name(checkpoint, shard)
                data = array.sharding(self.manifest).pack(chunk) if self.manifest.sharded else chunk.data.cast("B")
                held = hashing.submit(FileHash.of, data)
                self.place.write(name, data)
                files[name] = held.result()
        self._commit(
            CommitRecord(
                checkpoint,
                shard,
                rows=(span.start, span.stop),
                files=files,
                fingerprint=self.manifest.fingerprint(checkpoint),
                format_version=self.manifest.format_version,
            )
        )

    def _commit(self, record: CommitRecord) -> None:
        """The first writer's record stays; a later one's must be the same."""
        name, data = record_name(record.checkpoint, record.shard), record.to_bytes()
        if not self.place.write_new(name, data) and self.place.read(name) != data:
            raise StoreMismatchError(
                f"Two processes wrote {name} of '{self.location}' at the same time, and their rows differ: they do not "
                "run the same versions, or not on the same kind of machine. Let one of them build alone, and run "
                "gradstore verify on the store."
            )
        self._commits.mark(record.checkpoint, record.shard, done=True)

    def discard(self, checkpoint: int, shard: int) -> None:
        """Take a shard's commit back, so that the next build writes it anew: the cure for a damaged shard."""
        self._check_checkpoint(checkpoint)
        self._check_shard(shard)
        self.place.remove(record_name(checkpoint, shard))
        self._commits.mark(checkpoint, shard, done=False)

    def remove_leftovers(self) -> list[Path]:
        """Remove the temporary files of runs that were killed; those of running ones stay. Returns the removed."""
        folders = [self.place.local(name) for name in layout.folders(self.manifest)]  # a bucket has no such files
        found = temporary_files(folder for folder in folders if folder is not None)
        abandoned = [file for file in found if is_abandoned(file)]
        for file in abandoned:
            with write_errors(file):
                file.unlink(missing_ok=True)
        return abandoned

    def forget(self, ids: Sequence[str]) -> int:
        """Forget these examples: rankings and searches take no notice of them. Returns how many were not before.

        Raises:
            UnknownExampleError: an id that the store has not; nothing is forgotten then.
            QueryError: no example would be left.
        """
        return forget(self, ids)

    def remember(self, ids: Sequence[str] | None = None) -> int:
        """Take notice of forgotten examples again, of all unless ids are given. Returns how many there were.

        Raises:
            UnknownExampleError: an id that the store has not.
            QueryError: an example that is not forgotten.
        """
        return remember(self, ids)

    # What is done

    def refresh(self) -> None:
        """List the commit records again: other processes may have written some."""
        self._commits.refresh()

    def is_committed(self, checkpoint: int, shard: int) -> bool:
        """Whether this shard is done, as of now."""
        self._check_checkpoint(checkpoint)
        self._check_shard(shard)
        return self._commits.is_done(checkpoint, shard)

    @property
    def n_committed(self) -> int:
        """Shards done, over all checkpoints (of n_checkpoints * n_shards), as of now."""
        return self._commits.n_done()

    @property
    def is_complete(self) -> bool:
        """Whether every shard of every checkpoint is done."""
        return self.n_committed == len(self._commits)

    def pending(self) -> Iterator[tuple[int, int]]:
        """(checkpoint, shard) of what is not done, as of now."""
        return iter(self._commits.pending())

    def require_complete(self) -> None:
        """Raises StoreIncompleteError while shards are missing."""
        self._commits.require_all()


def _reopened(location: str, parameters: str) -> Store:
    return Store.open(location).of_set(parameters)


def _not_found(place: Place) -> StoreNotFoundError:
    if any(True for _ in place.names("build")):
        return StoreNotFoundError(
            f"The store at '{place.location}' is still being prepared: its model is in training, or was. "
            "Wait for it, or run the same build command to go on."
        )
    return StoreNotFoundError(
        f"No gradient store at '{place.location}' (no {layout.MANIFEST} in it). "
        f"Make one with: gradstore build SOURCE --store {place.location}"
    )
