"""Reading a store: what it holds, and rows by range or by number.

A store may hold gradients with respect to several sets of parameters. Those of one set are read, the first unless
told otherwise; `of_set` gives the same store read by another, so that whatever works on a store works on each of its
sets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Float16, Float32, Float64, Int
from numpy.typing import NDArray

from gradstore.errors import QueryError, UnknownExampleError
from gradstore.store import layout
from gradstore.store.chunks import gather_rows, map_range, read_range
from gradstore.store.commits import CommitTable, committed_units, record_path
from gradstore.store.examples import Examples
from gradstore.store.layout import DRAW_NORMS, LATENTS, LAYER_NORMS, LOSSES, NORMS, SKETCHES, ArrayLayout, Kind
from gradstore.store.manifest import Manifest


class StoreReader:
    """A gradient store's rows, read with the gradients of one of its sets of parameters."""

    def __init__(self, path: Path, manifest: Manifest, parameters: str | None = None) -> None:
        self.path = path
        self.manifest = manifest
        self.parameters = parameters or manifest.parameter_sets[0]
        """name of the set of parameters whose gradients are read"""
        self._examples = Examples(path / layout.EXAMPLES)
        self._commits = CommitTable(path, manifest)

    def of_set(self, parameters: str) -> Self:
        """The same store, read with the gradients of another of its sets of parameters.

        Raises:
            QueryError: lists the sets that it holds.
        """
        if parameters not in self.parameter_sets:
            raise QueryError(
                f"'{self.path}' holds gradients of {', '.join(map(repr, self.parameter_sets))}, not of {parameters!r}. "
                "Name one of those, or build a store that tracks it too: --parameters may be repeated."
            )
        return type(self)(self.path, self.manifest, parameters)

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
    def parameter_sets(self) -> tuple[str, ...]:
        """Names of the sets of parameters that it holds gradients of; `of_set` takes one."""
        return self.manifest.parameter_sets

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers of this set, the columns of `layer_norms`; none where those are not kept."""
        return (self.manifest.layers or {}).get(self.parameters, ())

    @property
    def set_suffix(self) -> str:
        """What tells files computed from this set from those of the first: nothing, `-1`, `-2`, …"""
        return layout.set_suffix(self.manifest, self.parameters)

    def keeps(self, array: str) -> bool:
        """Whether it has an array: sketches, norms, losses and latents always, layer_norms and draw_norms if asked."""
        return any(found.kind.name == array for found in layout.arrays(self.manifest))

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

    # Every reader raises StoreIncompleteError for rows that are not committed

    def unit_sketches(self, checkpoint: int, start: int, stop: int) -> Float16[np.ndarray, "row d_sketch"]:
        """Sketches of a range of examples, each divided by its exact gradient norm (zeros where that is 0)."""
        return self._range(SKETCHES, checkpoint, start, stop)

    def mapped_sketches(self, checkpoint: int, start: int, stop: int) -> Float16[np.ndarray, "row d_sketch"]:
        """Those of `unit_sketches` without a copy: read-only, for a range within one shard."""
        self._check_checkpoint(checkpoint)
        self._check_range(start, stop)
        self._commits.require(checkpoint, [start // self.manifest.shard_rows])
        return map_range(self.path, self._array(SKETCHES), self.manifest, checkpoint, start, stop)

    def sketch_rows(self, checkpoint: int, indices: Int[np.ndarray, " row"]) -> Float16[np.ndarray, "row d_sketch"]:
        """The same for scattered examples, in the order asked for."""
        return self._rows(SKETCHES, checkpoint, indices)

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
                f"'{self.path}' keeps no norms by layer. Build a store with --per-layer-norms at another path."
            )
        return self._range(LAYER_NORMS, checkpoint, start, stop)

    def draw_norms(self, checkpoint: int) -> Float32[np.ndarray, " example"]:
        """Root mean square, over the Monte Carlo draws, of the norm of each draw's gradient.

        `draw_norms**2 - norms**2` is the variance of the gradient over the draws.

        Raises:
            QueryError: the store keeps none.
        """
        if not self.keeps(DRAW_NORMS.name):
            raise QueryError(
                f"'{self.path}' keeps no variance over Monte Carlo draws. "
                "Build a store with --draws 2 or more at another path."
            )
        return self._range(DRAW_NORMS, checkpoint, 0, self.n_examples)

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

    def _array(self, kind: Kind) -> ArrayLayout:
        return layout.array_of(self.manifest, kind, self.parameters if kind.of_set else None)

    def _range(self, kind: Kind, checkpoint: int, start: int, stop: int) -> Float[np.ndarray, "row ..."]:
        self._check_checkpoint(checkpoint)
        self._check_range(start, stop)
        shards = [shard for shard, _, _ in layout.split_at_shards(self.manifest, start, stop)]
        self._commits.require(checkpoint, shards)
        return read_range(self.path, self._array(kind), self.manifest, checkpoint, start, stop)

    def _rows(self, kind: Kind, checkpoint: int, indices: NDArray[np.int64]) -> Float[np.ndarray, "row ..."]:
        self._check_checkpoint(checkpoint)
        outside = indices[(indices < 0) | (indices >= self.n_examples)]
        if outside.size:
            raise UnknownExampleError(f"'{self.path}' has rows 0 to {self.n_examples - 1}, not {outside[0]}.")
        self._commits.require(checkpoint, np.unique(indices // self.manifest.shard_rows).tolist())
        return gather_rows(self.path, self._array(kind), self.manifest, checkpoint, indices)

    def content_fingerprint(self) -> str:
        """Hash over all commit records: changes when any row of any array changes; another for another set."""
        digest = hashlib.sha256(self.parameters.encode() if self.set_suffix else b"")
        for checkpoint, shard in sorted(committed_units(self.path)):
            digest.update(record_path(self.path, checkpoint, shard).read_bytes())
        return digest.hexdigest()

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
