"""The store: write a shard once, read rows by range or by number.

A shard is R consecutive examples at one checkpoint. One unit of work hands over one shard; the store writes it as
whole files, one an array, and then its commit record. Nobody else writes those files, so units may run anywhere, in
any order, any number at once. What the records say is all that counts as done.

How rows are read: `gradstore.store.reading`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from gradstore.errors import StoreNotFoundError
from gradstore.store import layout
from gradstore.store.chunks import ShardRows, check_finite, encode
from gradstore.store.commits import CommitRecord, FileHash, record_path
from gradstore.store.creation import complete_skeleton, read_manifest, require_same_settings, restore_metadata
from gradstore.store.files import (
    is_abandoned,
    sync_folder,
    temporary_files,
    write_atomically,
    write_errors,
)
from gradstore.store.manifest import Manifest
from gradstore.store.reading import StoreReader


class Store(StoreReader):
    """A gradient store on disk. Make one with `create` or `open`; it may be pickled (it is opened again)."""

    @classmethod
    def create(cls, path: Path | str, manifest: Manifest, examples: Iterable[pa.RecordBatch]) -> Store:
        """Make a store, or open the one that is there when it was made by the same settings.

        Args:
            examples: batches with columns id (string), label (int32, may be null) and path (string, may be null),
                `manifest.n_examples` rows in all; not touched when the store is there already.

        Raises:
            StoreMismatchError: a store made by other settings is there; shows both values of each.
            StoreError: the folder holds something else.
            ShapeError: `examples` has another number of rows than the manifest says.
            StoreWriteError: disk full, read-only, no permission.
        """
        path = Path(path)
        complete_skeleton(path, manifest, examples)
        store = cls.open(path)
        require_same_settings(path, store.manifest, manifest)
        restore_metadata(path, store.manifest)
        store.remove_leftovers()
        return store

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """Open a store, complete or not.

        Raises:
            StoreNotFoundError: there is none.
            StoreFormatError: it has a format that this version does not read.
        """
        path = Path(path)
        if not (path / layout.MANIFEST).is_file():
            if (path / "build").is_dir():
                raise StoreNotFoundError(
                    f"The store at '{path}' is still being prepared: its model is in training, or was. "
                    "Wait for it, or run the same build command to go on."
                )
            raise StoreNotFoundError(
                f"No gradient store at '{path}' (no {layout.MANIFEST} in it). "
                f"Make one with: gradstore build SOURCE --store {path}"
            )
        return cls(path, read_manifest(path))

    def __reduce__(self) -> tuple[Callable[[Path, str], Store], tuple[Path, str]]:
        return _reopened, (self.path, self.parameters)

    def __repr__(self) -> str:
        size = f"{self.n_examples} examples x {self.n_checkpoints} checkpoints"
        return f"Store({str(self.path)!r}: {size}, gradients of {self.parameters!r})"

    # Writing

    def write_shard(self, checkpoint: int, shard: int, rows: ShardRows | Iterable[ShardRows], fingerprint: str) -> None:
        """Write one shard, of all sets, and commit it; on return it has reached the disk. A committed one stays.

        Args:
            rows: the shard's examples, at once or in consecutive parts.
            fingerprint: what made the rows (code and configuration), kept in the commit record.

        Raises:
            ShapeError: `rows` does not have the shard's shape.
            TaskError: `rows` holds NaN or infinity; names the examples.
            StoreWriteError: disk full, read-only, no permission; nothing is committed then.
        """
        if self.is_committed(checkpoint, shard):
            return
        span = self.shard_range(shard)
        chunks = encode([rows] if isinstance(rows, ShardRows) else rows, self.manifest, len(span))
        check_finite(chunks, len(span), checkpoint, lambda: self.ids(span.start, span.stop))
        files = {}
        for array, chunk in chunks.items():
            name, data = array.file_name(checkpoint, shard), chunk.data.cast("B")
            write_atomically(self.path / name, data)
            files[name] = FileHash.of(data)
        rows_done, version = (span.start, span.stop), self.manifest.format_version
        record = CommitRecord(checkpoint, shard, rows_done, files, fingerprint, version)
        write_atomically(record_path(self.path, checkpoint, shard), record.to_bytes())
        self._commits.mark(checkpoint, shard, done=True)

    def discard(self, checkpoint: int, shard: int) -> None:
        """Take a shard's commit back, so that the next build writes it anew: the cure for a damaged shard."""
        self._check_checkpoint(checkpoint)
        self._check_shard(shard)
        record = record_path(self.path, checkpoint, shard)
        with write_errors(record):
            record.unlink(missing_ok=True)
            sync_folder(record.parent)
        self._commits.mark(checkpoint, shard, done=False)

    def remove_leftovers(self) -> list[Path]:
        """Remove the temporary files of runs that were killed; those of running ones stay. Returns the removed."""
        abandoned = [file for file in temporary_files(layout.folders(self.path, self.manifest)) if is_abandoned(file)]
        for file in abandoned:
            with write_errors(file):
                file.unlink(missing_ok=True)
        return abandoned

    # What is done

    def refresh(self) -> None:
        """List the commit records again: other processes may have written some."""
        self._commits.refresh()

    def is_committed(self, checkpoint: int, shard: int) -> bool:
        """Whether this shard is done; looks at the disk as long as it is not."""
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


def _reopened(path: Path, parameters: str) -> Store:
    return Store.open(path).of_set(parameters)
