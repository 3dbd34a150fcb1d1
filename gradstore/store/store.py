"""The store: write a shard once, read rows by range or by number.

A shard is R consecutive examples at one checkpoint. One unit of work hands over one shard; the store writes it as
four whole files, one an array, and then its commit record. Nobody else writes those files, so units may run
anywhere, in any order, any number at once. What the records say is all that counts as done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float16, Float32, Float64, Int
from numpy.typing import NDArray

from gradstore.errors import (
    QueryError,
    StoreNotFoundError,
    UnknownExampleError,
)
from gradstore.store import layout
from gradstore.store.chunks import ShardRows, check_finite, encode, gather_rows, read_range
from gradstore.store.commits import CommitRecord, CommitTable, FileHash, committed_units, record_path
from gradstore.store.creation import complete_skeleton, read_manifest, require_same_settings, restore_metadata
from gradstore.store.examples import Examples
from gradstore.store.files import (
    is_abandoned,
    sync_folder,
    temporary_files,
    write_atomically,
    write_errors,
)
from gradstore.store.layout import LATENTS, LOSSES, NORMS, SKETCHES, ArrayLayout
from gradstore.store.manifest import Manifest


class Store:
    """A gradient store on disk. Make one with `create` or `open`; it may be pickled (it is opened again)."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._examples = Examples(path / layout.EXAMPLES)
        self._commits = CommitTable(path, manifest)

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

    def __reduce__(self) -> tuple[Callable[[Path], Store], tuple[Path]]:
        return type(self).open, (self.path,)

    def __repr__(self) -> str:
        return f"Store({str(self.path)!r}: {self.n_examples} examples x {self.n_checkpoints} checkpoints)"

    # What it holds

    @property
    def n_examples(self) -> int:
        return self.manifest.n_examples

    @property
    def n_checkpoints(self) -> int:
        return self.manifest.n_checkpoints

    @property
    def d_sketch(self) -> int:
        return self.manifest.d_sketch

    @property
    def n_shards(self) -> int:
        """Shards of one checkpoint."""
        return self.manifest.n_shards

    @property
    def learning_rates(self) -> Float64[np.ndarray, " checkpoint"]:
        """eta_t, the learning rate in force at each checkpoint."""
        return np.array(self.manifest.learning_rates, dtype=np.float64)

    def shard_range(self, shard: int) -> range:
        """The examples of a shard."""
        self._check_shard(shard)
        return layout.shard_range(self.manifest, shard)

    def blocks(self, rows: int = 4096) -> Iterator[tuple[int, int]]:
        """(start, stop) of at most `rows` examples each, covering all in order, none crossing a shard."""
        for shard in range(self.n_shards):
            yield from _split(self.shard_range(shard), rows)

    def committed_blocks(self, checkpoint: int, rows: int = 4096) -> Iterator[tuple[int, int]]:
        """Those of `blocks` that can be read at this checkpoint of an unfinished store."""
        self._check_checkpoint(checkpoint)
        for shard in self._commits.done_shards(checkpoint):
            yield from _split(self.shard_range(shard), rows)

    # Writing

    def write_shard(self, checkpoint: int, shard: int, rows: ShardRows | Iterable[ShardRows], fingerprint: str) -> None:
        """Write one shard and commit it; on return it has reached the disk. A committed shard stays as it is.

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
        for array in layout.ARRAYS:
            name, data = array.file_name(checkpoint, shard), chunks[array.name].data.cast("B")
            write_atomically(self.path / name, data)
            files[name] = FileHash.of(data)
        record = CommitRecord(checkpoint, shard, (span.start, span.stop), files, fingerprint)
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
        abandoned = [file for file in temporary_files(layout.folders(self.path)) if is_abandoned(file)]
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

    def content_fingerprint(self) -> str:
        """Hash over all commit records: changes when any row of any array changes."""
        digest = hashlib.sha256()
        for checkpoint, shard in sorted(committed_units(self.path)):
            digest.update(record_path(self.path, checkpoint, shard).read_bytes())
        return digest.hexdigest()

    # Reading: every reader raises StoreIncompleteError for rows that are not committed

    def unit_sketches(self, checkpoint: int, start: int, stop: int) -> Float16[np.ndarray, "row d_sketch"]:
        """Sketches of a range of examples, each divided by its exact gradient norm (zeros where that is 0)."""
        return self._range(SKETCHES, checkpoint, start, stop)

    def sketch_rows(self, checkpoint: int, indices: Int[np.ndarray, " row"]) -> Float16[np.ndarray, "row d_sketch"]:
        """The same for scattered examples, in the order asked for."""
        return self._rows(SKETCHES, checkpoint, indices)

    def latents(self, checkpoint: int, start: int, stop: int) -> Float32[np.ndarray, "row d_latent"]:
        """Latents of a range of examples."""
        return self._range(LATENTS, checkpoint, start, stop)

    def latent_rows(self, checkpoint: int, indices: Int[np.ndarray, " row"]) -> Float32[np.ndarray, "row d_latent"]:
        """Latents of scattered examples, in the order asked for."""
        return self._rows(LATENTS, checkpoint, indices)

    def norms(self, checkpoint: int) -> Float32[np.ndarray, " example"]:
        """Exact gradient norm of every example."""
        return self._range(NORMS, checkpoint, 0, self.n_examples)

    def losses(self, checkpoint: int) -> Float32[np.ndarray, " example"]:
        """Loss of every example."""
        return self._range(LOSSES, checkpoint, 0, self.n_examples)

    def ids(self, start: int, stop: int) -> list[str]:
        """Ids of a range of examples."""
        self._check_range(start, stop)
        return self._examples.ids(start, stop)

    def paths(self, start: int, stop: int) -> list[str | None]:
        """The file of each example, None where it has none of its own."""
        self._check_range(start, stop)
        return self._examples.paths(start, stop)

    def examples_at(self, rows: Int[np.ndarray, " row"]) -> pa.Table:
        """id, label (the class's name, null where there is none) and path of scattered examples, in their order."""
        table, names = self._examples.take(rows), self.manifest.label_names
        labels = [None if c is None or names is None else names[c] for c in table.column("label").to_pylist()]
        return table.set_column(1, "label", pa.array(labels, pa.string()))

    def labels(self) -> Int[np.ndarray, " example"] | None:
        """[N] int32 class of every example, -1 where it has none; None when no example has one."""
        return self._examples.labels()

    def row_of(self, ids: Sequence[str]) -> Int[np.ndarray, " id"]:
        """[n] int64, the row of each id; UnknownExampleError names the ids closest to an unknown one."""
        return self._examples.row_of(ids)

    def _range(self, array: ArrayLayout, checkpoint: int, start: int, stop: int) -> Float[np.ndarray, "row ..."]:
        self._check_checkpoint(checkpoint)
        self._check_range(start, stop)
        shards = [shard for shard, _, _ in layout.split_at_shards(self.manifest, start, stop)]
        self._commits.require(checkpoint, shards)
        return read_range(self.path, array, self.manifest, checkpoint, start, stop)

    def _rows(self, array: ArrayLayout, checkpoint: int, indices: NDArray[np.int64]) -> Float[np.ndarray, "row ..."]:
        self._check_checkpoint(checkpoint)
        outside = indices[(indices < 0) | (indices >= self.n_examples)]
        if outside.size:
            raise UnknownExampleError(f"'{self.path}' has rows 0 to {self.n_examples - 1}, not {outside[0]}.")
        self._commits.require(checkpoint, np.unique(indices // self.manifest.shard_rows).tolist())
        return gather_rows(self.path, array, self.manifest, checkpoint, indices)

    def _check_checkpoint(self, checkpoint: int) -> None:
        if not 0 <= checkpoint < self.n_checkpoints:
            raise QueryError(f"'{self.path}' has checkpoints 0 to {self.n_checkpoints - 1}, not {checkpoint}.")

    def _check_shard(self, shard: int) -> None:
        if not 0 <= shard < self.n_shards:
            raise QueryError(f"'{self.path}' has shards 0 to {self.n_shards - 1} a checkpoint, not {shard}.")

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.n_examples:
            raise UnknownExampleError(f"'{self.path}' has rows 0 to {self.n_examples - 1}, not {start}:{stop}.")


def _split(span: range, rows: int) -> Iterator[tuple[int, int]]:
    for start in range(span.start, span.stop, rows):
        yield start, min(start + rows, span.stop)
