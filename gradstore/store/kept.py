"""A store without its forgotten examples: the same rows, numbered anew from 0, as if the others had never been there.

Why a view and not a mask: means, covariances, ranks and percentiles over such rows are then right by construction,
whatever computes them. It holds 8 bytes an example, and only where something is forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Float16, Float32, Float64, Int, Int32, Int64

from gradstore.store.forgotten import fingerprint_of
from gradstore.store.manifest import Manifest

if TYPE_CHECKING:
    from gradstore.store.store import Store


class KeptRows:
    """What rankings read of a store (`gradstore.ranking.rank.RankedStore`), for the examples that are not forgotten."""

    def __init__(self, store: Store, forgotten: Bool[np.ndarray, " example"]) -> None:
        self._store, self._forgotten = store, forgotten
        self.rows: Int64[np.ndarray, " kept"] = np.flatnonzero(~forgotten)
        """their numbers in the store, ascending"""

    @property
    def n_examples(self) -> int:
        return len(self.rows)

    @property
    def n_checkpoints(self) -> int:
        return self._store.n_checkpoints

    @property
    def d_sketch(self) -> int:
        return self._store.d_sketch

    @property
    def learning_rates(self) -> Float64[np.ndarray, " checkpoint"]:
        return self._store.learning_rates

    @property
    def manifest(self) -> Manifest:
        return self._store.manifest

    @property
    def folder(self) -> Path:
        return self._store.folder

    @property
    def set_suffix(self) -> str:
        return self._store.set_suffix

    def keeps(self, array: str) -> bool:
        return self._store.keeps(array)

    def require_complete(self) -> None:
        self._store.require_complete()

    def content_fingerprint(self) -> str:
        """Changes when a row changes, and when others are forgotten."""
        both = f"{self._store.content_fingerprint()} without {fingerprint_of(self._forgotten)}"
        return hashlib.sha256(both.encode()).hexdigest()

    def blocks(self, rows: int = 4096) -> Iterator[tuple[int, int]]:
        for span in self._store.blocks(rows):
            start, stop = np.searchsorted(self.rows, span).tolist()
            if start < stop:
                yield start, stop

    def unit_sketches(self, checkpoint: int, start: int, stop: int) -> Float16[np.ndarray, "row d_sketch"]:
        return self._range(self._store.unit_sketches, checkpoint, start, stop)

    def precise_sketches(self, checkpoint: int, start: int, stop: int) -> Float32[np.ndarray, "row d_sketch"]:
        return self._range(self._store.precise_sketches, checkpoint, start, stop)

    def sketch_rows(self, checkpoint: int, indices: Int[np.ndarray, " row"]) -> Float16[np.ndarray, "row d_sketch"]:
        return self._store.sketch_rows(checkpoint, self.rows[indices])

    def latents(self, checkpoint: int, start: int, stop: int) -> Float32[np.ndarray, "row d_latent"]:
        return self._range(self._store.latents, checkpoint, start, stop)

    def latent_rows(self, checkpoint: int, indices: Int[np.ndarray, " row"]) -> Float32[np.ndarray, "row d_latent"]:
        return self._store.latent_rows(checkpoint, self.rows[indices])

    def predictions(self, checkpoint: int, start: int, stop: int) -> Float16[np.ndarray, "row class"]:
        return self._range(self._store.predictions, checkpoint, start, stop)

    def norms(self, checkpoint: int) -> Float32[np.ndarray, " example"]:
        return np.asarray(self._store.norms(checkpoint)[self.rows])

    def draw_norms(self, checkpoint: int) -> Float32[np.ndarray, " example"]:
        return np.asarray(self._store.draw_norms(checkpoint)[self.rows])

    def layer_norms(self, checkpoint: int, start: int, stop: int) -> Float32[np.ndarray, "row layer"]:
        return self._range(self._store.layer_norms, checkpoint, start, stop)

    def losses(self, checkpoint: int) -> Float32[np.ndarray, " example"]:
        return np.asarray(self._store.losses(checkpoint)[self.rows])

    def labels(self) -> Int32[np.ndarray, " example"] | None:
        labels = self._store.labels()
        return None if labels is None else labels[self.rows]

    def ids(self, start: int, stop: int) -> list[str]:
        return list(map(str, self._examples(start, stop, "id")))

    def paths(self, start: int, stop: int) -> list[str | None]:
        return [None if path is None else str(path) for path in self._examples(start, stop, "path")]

    def _examples(self, start: int, stop: int, column: str) -> Sequence[object]:
        return self._store.examples_at(self.rows[start:stop]).column(column).to_pylist()

    def _range(
        self,
        read: Callable[[int, int, int], Float[np.ndarray, "row width"]],
        checkpoint: int,
        start: int,
        stop: int,
    ) -> Float[np.ndarray, "row width"]:
        """The kept among the store's rows from the first of these to the last."""
        if start == stop:
            return read(checkpoint, 0, 0)
        wanted = self.rows[start:stop]
        first, last = int(wanted[0]), int(wanted[-1]) + 1
        found = read(checkpoint, first, last)
        return found if last - first == stop - start else found[wanted - first]


def kept_rows(store: Store) -> Store | KeptRows:
    """The store as it is where nothing is forgotten, or without what is.

    Raises:
        StoreCorruptError: the list of what is forgotten is damaged.
    """
    forgotten = store.forgotten()
    return store if forgotten is None else KeptRows(store, forgotten)
