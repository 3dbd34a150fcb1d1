"""What a store is, from its manifest: sizes, sets of parameters, layers, and where it lies.

A store may hold gradients with respect to several sets of parameters. Those of one set are read, the first unless
told otherwise; `of_set` gives the same store read by another, so that whatever works on a store works on each of its
sets.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Float64

from gradstore.errors import QueryError, UnknownExampleError
from gradstore.store import layout
from gradstore.store.manifest import Manifest
from gradstore.store.place import Place, local_folder


class DescribedStore:
    """A gradient store as its manifest describes it, with the gradients of one of its sets of parameters."""

    def __init__(self, place: Place, manifest: Manifest, parameters: str | None = None) -> None:
        self.place = place
        self.manifest = manifest
        self.parameters = parameters or manifest.parameter_sets[0]
        """name of the set of parameters whose gradients are read"""

    @property
    def location(self) -> str:
        """The path or URL that it was opened with."""
        return self.place.location

    @cached_property
    def folder(self) -> Path:
        """Where files that are computed from it lie, on this machine: its own folder, or for a store in a bucket a
        folder of the cache (`gradstore.store.place.cache_folder`).
        """
        return local_folder(self.location)

    def of_set(self, parameters: str) -> Self:
        """The same store, read with the gradients of another of its sets of parameters.

        Raises:
            QueryError: lists the sets that it holds.
        """
        if parameters not in self.parameter_sets:
            raise QueryError(
                f"'{self.location}' holds gradients of {', '.join(map(repr, self.parameter_sets))}, not of "
                f"{parameters!r}. Name one of those, or build a store that tracks it too: --parameters may be repeated."
            )
        return type(self)(self.place, self.manifest, parameters)

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
        return layout.layers_of(self.manifest, self.parameters)

    @property
    def set_suffix(self) -> str:
        """What tells files computed from this set from those of the first: nothing, `-1`, `-2`, …"""
        return layout.set_suffix(self.manifest, self.parameters)

    def keeps(self, array: str) -> bool:
        """Whether it has an array: sketches, norms, losses and latents always, layer_norms, draw_norms and predictions
        where asked for.
        """
        return any(found.kind.name == array for found in layout.arrays(self.manifest))

    @property
    def learning_rates(self) -> Float64[np.ndarray, " checkpoint"]:
        """eta_t, the learning rate in force at each checkpoint."""
        return np.array(self.manifest.learning_rates, dtype=np.float64)

    def shard_range(self, shard: int) -> range:
        """The examples of a shard."""
        self._check_shard(shard)
        return layout.shard_range(self.manifest, shard)

    def _check_checkpoint(self, checkpoint: int) -> None:
        if not 0 <= checkpoint < self.n_checkpoints:
            raise QueryError(f"'{self.location}' has checkpoints 0 to {self.n_checkpoints - 1}, not {checkpoint}.")

    def _check_shard(self, shard: int) -> None:
        if not 0 <= shard < self.n_shards:
            raise QueryError(f"'{self.location}' has shards 0 to {self.n_shards - 1} a checkpoint, not {shard}.")

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start <= stop <= self.n_examples:
            raise UnknownExampleError(f"'{self.location}' has rows 0 to {self.n_examples - 1}, not {start}:{stop}.")
