"""Reading a store: rows by range or by number, ids, labels and paths.

What it holds in all: `gradstore.store.described`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Float16, Float32, Int
from numpy.typing import NDArray

from gradstore.errors import QueryError, UnknownExampleError
from gradstore.store import layout
from gradstore.store.commits import CommitTable, committed_units, record_name
from gradstore.store.described import DescribedStore
from gradstore.store.examples import Examples
from gradstore.store.forgotten import forgotten_mask
from gradstore.store.kinds import DRAW_NORMS, LATENTS, LAYER_NORMS, LOSSES, NORMS, PREDICTIONS, SCALES, SKETCHES, Kind
from gradstore.store.layout import ArrayLayout
from gradstore.store.local_files import local_file
from gradstore.store.manifest import Manifest
from gradstore.store.place import Place
from gradstore.store.quantised import dequantised
from gradstore.store.row_access import gather_rows, map_range, read_range


class StoreReader(DescribedStore):
    """A gradient store's rows, read with the gradients of one of its sets of parameters."""

    def __init__(self, place: Place, manifest: Manifest, parameters: str | None = None) -> None:
        super().__init__(place, manifest, parameters)
        self._examples = Examples(
            lambda: self.local_file(layout.EXAMPLES, manifest.examples_sha256), manifest.n_examples
        )
        self._commits = CommitTable(place, manifest)

    def local_file(self, name: str, sha256: str | None) -> Path:
        """A file of the store on this machine: the file itself, or a copy from the bucket in the cache.

        Raises:
            FileNotFoundError: it is not in the bucket.
            StoreCorruptError: there it has another hash than this.
        """
        return local_file(self.place, name, sha256, self.folder)

    def blocks(self, rows: int = 4096) -> Iterator[tuple[int, int]]:
        """(start, stop) of at most `rows` examples each, covering all in order, none crossing a shard."""
        for shard in range(self.n_shards):
            yield from _split(self.shard_range(shard), rows)

    def committed_blocks(self, checkpoint: int, rows: int = 4096) -> Iterator[tuple[int, int]]:
        """Those of `blocks` that can be read at this checkpoint of an unfinished store."""
        self._check_checkpoint(checkpoint)
        for shard in self._commits.done_shards(checkpoint):
            yield from _split(self.shard_range(shard), rows)

    # Every reader raises StoreIncompleteError for rows that are not committed

    def unit_sketches(self, checkpoint: int, start: int, stop: int) -> Float16[np.ndarray, "row d_sketch"]:
        """Sketches of a range of examples, each divided by its exact gradient norm (zeros where that is 0).

        What is stored, rounded to float16 where it is something else: search is exact in these bits.
        """
        return _half(self._stored_sketches(checkpoint, start, stop))

    def precise_sketches(self, checkpoint: int, start: int, stop: int) -> Float32[np.ndarray, "row d_sketch"]:
        """The same as they are stored, without rounding to float16."""
        return self._stored_sketches(checkpoint, start, stop).astype(np.float32, copy=False)

    def _stored_sketches(self, checkpoint: int, start: int, stop: int) -> Float[np.ndarray, "row d_sketch"]:
        rows = self._range(SKETCHES, checkpoint, start, stop)
        return rows if rows.dtype != np.int8 else dequantised(rows, self._range(SCALES, checkpoint, start, stop))

    @property
    def maps_sketches(self) -> bool:
        """Whether `mapped_sketches` copies nothing: float16 rows as they are, in a folder."""
        return self.place.local() is not None and self.manifest.sketch_dtype == "float16" and not self.manifest.sharded

    def mapped_sketches(self, checkpoint: int, start: int, stop: int) -> Float16[np.ndarray, "row d_sketch"]:
        """Those of `unit_sketches`, without a copy where they are stored so: for a range within one shard."""
        if self.manifest.sketch_dtype != "float16":
            return self.unit_sketches(checkpoint, start, stop)
        self._check_checkpoint(checkpoint)
        self._check_range(start, stop)
        self._commits.require(checkpoint, [start // self.manifest.shard_rows])
        return map_range(self.place, self._array(SKETCHES), self.manifest, checkpoint, start, stop)

    def sketch_rows(self, checkpoint: int, indices: Int[np.ndarray, " row"]) -> Float16[np.ndarray, "row d_sketch"]:
        """The same for scattered examples, in the order asked for."""
        rows = self._rows(SKETCHES, checkpoint, indices)
        return _half(rows if rows.dtype != np.int8 else dequantised(rows, self._rows(SCALES, checkpoint, indices)))

    def latents(self, checkpoint: int, start: int, stop: int) -> Float32[np.ndarray, "row d_latent"]:
        """Latents of a range of examples."""
        return self._range(LATENTS, checkpoint, start, stop)

    def latent_rows(self, checkpoint: int, indices: Int[np.ndarray, " row"]) -> Float32[np.ndarray, "row d_latent"]:
        """Latents of scattered examples, in the order asked for."""
        return self._rows(LATENTS, checkpoint, indices)

    def norms(self, checkpoint: int, start: int = 0, stop: int | None = None) -> Float32[np.ndarray, " example"]:
        """Exact gradient norm of every example, or of a range of them."""
        return self._range(NORMS, checkpoint, start, self.n_examples if stop is None else stop)

    def layer_norms(self, checkpoint: int, start: int, stop: int) -> Float32[np.ndarray, "row layer"]:
        """Exact gradient norms of a range of examples by layer, in the order of `layers`.

        Raises:
            QueryError: the store keeps none.
        """
        if not self.keeps(LAYER_NORMS.name):
            raise QueryError(
                f"'{self.location}' keeps no norms by layer. Build a store with --per-layer-norms at another path."
            )
        return self._range(LAYER_NORMS, checkpoint, start, stop)

    def draw_norms(self, checkpoint: int, start: int = 0, stop: int | None = None) -> Float32[np.ndarray, " example"]:
        """Root mean square, over the Monte Carlo draws, of the norm of each draw's gradient.

        `draw_norms**2 - norms**2` is the variance of the gradient over the draws.

        Raises:
            QueryError: the store keeps none.
        """
        if not self.keeps(DRAW_NORMS.name):
            raise QueryError(
                f"'{self.location}' keeps no variance over Monte Carlo draws. "
                "Build a store with --draws 2 or more at another path."
            )
        return self._range(DRAW_NORMS, checkpoint, start, self.n_examples if stop is None else stop)

    def losses(self, checkpoint: int, start: int = 0, stop: int | None = None) -> Float32[np.ndarray, " example"]:
        """Loss of every example, or of a range of them."""
        return self._range(LOSSES, checkpoint, start, self.n_examples if stop is None else stop)

    def predictions(self, checkpoint: int, start: int, stop: int) -> Float16[np.ndarray, "row class"]:
        """Log-probability that the model gave each class, for a range of examples.

        Raises:
            QueryError: the store keeps none.
        """
        if not self.keeps(PREDICTIONS.name):
            raise QueryError(
                f"'{self.location}' keeps no predictions: its model has no `predict`, or it is of an older format. "
                "Build a store with --model classifier, or with a Task of your own that has predict(model, batch)."
            )
        return self._range(PREDICTIONS, checkpoint, start, stop)

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

    def forgotten(self) -> Bool[np.ndarray, " example"] | None:
        """Which examples are forgotten, as of now; None where none is. Reads of rows give them all the same.

        Raises:
            StoreCorruptError: the list is damaged.
        """
        return forgotten_mask(self)

    def _array(self, kind: Kind) -> ArrayLayout:
        return layout.array_of(self.manifest, kind, self.parameters if kind.of_set else None)

    def _range(self, kind: Kind, checkpoint: int, start: int, stop: int) -> Float[np.ndarray, "row ..."]:
        self._check_checkpoint(checkpoint)
        self._check_range(start, stop)
        shards = [shard for shard, _, _ in layout.split_at_shards(self.manifest, start, stop)]
        self._commits.require(checkpoint, shards)
        return read_range(self.place, self._array(kind), self.manifest, checkpoint, start, stop)

    def _rows(self, kind: Kind, checkpoint: int, indices: NDArray[np.int64]) -> Float[np.ndarray, "row ..."]:
        self._check_checkpoint(checkpoint)
        outside = indices[(indices < 0) | (indices >= self.n_examples)]
        if outside.size:
            raise UnknownExampleError(f"'{self.location}' has rows 0 to {self.n_examples - 1}, not {outside[0]}.")
        self._commits.require(checkpoint, np.unique(indices // self.manifest.shard_rows).tolist())
        return gather_rows(self.place, self._array(kind), self.manifest, checkpoint, indices)

    def content_fingerprint(self) -> str:
        """Hash over all commit records: changes when any row of any array changes; another for another set."""
        digest = hashlib.sha256(self.parameters.encode() if self.set_suffix else b"")
        units = sorted(committed_units(self.place))  # among them those of an append that is under way
        names = [record_name(c, s) for c, s in units if c < self.n_checkpoints and s < self.n_shards]
        for record in self.place.read_many(names):
            digest.update(record)
        return digest.hexdigest()


def _half(sketches: Float[np.ndarray, "row d_sketch"]) -> Float16[np.ndarray, "row d_sketch"]:
    return sketches.astype(np.float16, copy=False)


def _split(span: range, rows: int) -> Iterator[tuple[int, int]]:
    for start in range(span.start, span.stop, rows):
        yield start, min(start + rows, span.stop)
