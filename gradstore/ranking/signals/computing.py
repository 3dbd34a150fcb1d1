"""Computing the signals of a store, each once, whoever asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
from jaxtyping import Bool, Float32
from numpy.typing import NDArray

from gradstore.ranking.signals.base import SignalStore, Values
from gradstore.ranking.signals.label_beliefs import neighbour_beliefs
from gradstore.ranking.signals.latent_space import LatentSpace, WidestDirections, latent_space, widest_directions
from gradstore.ranking.signals.registry import signal_named, signals_of
from gradstore.ranking.signals.trusted import FIRST_ROUND, trusted_examples
from gradstore.search.rows import precise_sketches

Progress = Callable[[str], None]


class Computed:
    """A store, and those of its signals that have been computed so far."""

    def __init__(
        self, store: SignalStore, known: Mapping[str, Values] | None = None, progress: Progress | None = None
    ) -> None:
        self.store, self._known, self._progress = store, dict(known or {}), progress

    def values(self, name: str) -> Values:
        """A signal's values, computed when first asked for.

        Raises:
            UnknownSignalError: names the signals there are.
            QueryError: the store does not keep what the signal needs.
        """
        if name not in self._known:
            signal = signal_named(name)
            for required in signal.requires:
                self.values(required)
            if self._progress is not None:
                self._progress(name)
            self._known[name] = signal.compute(self)
        return self._known[name]

    @cached_property
    def trusted(self) -> Bool[np.ndarray, " example"]:
        return trusted_examples({name: self.values(name) for name in FIRST_ROUND})

    @cached_property
    def trusted_space(self) -> LatentSpace:
        return latent_space(self.store, self.trusted)

    @cached_property
    def widest_directions(self) -> WidestDirections:
        return widest_directions(self.store)

    @cached_property
    def neighbour_beliefs(self) -> Float32[np.ndarray, "example class"]:
        return neighbour_beliefs(self.store)


def compute_signals(
    store: SignalStore,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
    advance: Callable[[int], None] | None = None,
    known: Mapping[str, Values] | None = None,
) -> dict[str, Values]:
    """Signals of every example, name -> [N], in the order asked for.

    Args:
        store: a complete store.
        names: which signals; None for all that the store has and that are not on request.
        progress: called with a signal's name before it is computed.
        advance: called with the number of rows read since its last call.
        known: signals of this store that need not be computed again.

    Raises:
        UnknownSignalError: names the signals there are, before anything is computed.
        QueryError: the store does not keep what a signal needs.
        StoreIncompleteError: rows are missing.
    """
    wanted = signals_of(store) if names is None else list(dict.fromkeys(names))
    for name in wanted:
        signal_named(name)
    counted = store if advance is None else cast(SignalStore, _Counted(store, advance))
    computed = Computed(counted, known, progress)
    return {name: computed.values(name) for name in wanted}


def rows_to_read(store: SignalStore, names: Sequence[str], known: Sequence[str] = ()) -> int:
    """Rows that `compute_signals` will read, for its `advance`."""
    passes = sum(signal_named(name).passes for name in _with_required(names) if name not in known)
    return passes * store.n_examples * store.n_checkpoints


def _with_required(names: Sequence[str]) -> set[str]:
    required = {other for name in names for other in signal_named(name).requires}
    return {*names, *(_with_required(sorted(required)) if required else ())}


class _Counted:
    """A store that tells how many rows are read from it."""

    def __init__(self, store: SignalStore, advance: Callable[[int], None]) -> None:
        self._store, self._advance = store, advance

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def unit_sketches(self, checkpoint: int, start: int, stop: int) -> NDArray[np.float16]:
        self._advance(stop - start)
        return self._store.unit_sketches(checkpoint, start, stop)

    def precise_sketches(self, checkpoint: int, start: int, stop: int) -> NDArray[np.float32]:
        self._advance(stop - start)
        return precise_sketches(self._store, checkpoint, start, stop)

    def latents(self, checkpoint: int, start: int, stop: int) -> NDArray[np.float32]:
        self._advance(stop - start)
        return self._store.latents(checkpoint, start, stop)
