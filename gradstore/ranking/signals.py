"""Signals: one number an example that may betray a bad one, higher = more suspicious.

Every signal says in words what a high value means, for a ranking that nobody can read is a ranking that nobody
acts on. A signal reads the store and nothing else. `SIGNALS` are those that every store has, `OPTIONAL_SIGNALS` those
that need an array which a store only keeps when its build was asked to; `signals_of` says which a store has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol, cast

import numpy as np
from jaxtyping import Float32, Int
from numpy.typing import NDArray

from gradstore.errors import UnknownSignalError
from gradstore.influence import leverage
from gradstore.influence.tracin import self_influence
from gradstore.ranking.combine import percent_text
from gradstore.search.reference import knn_distance

N_NEIGHBOURS = 10
N_REFERENCE = 1024
"""Neighbours are sought among this many examples, seeded. Why so few: bad examples often come in kinds, and are
near each other. As long as a kind has fewer than ten rows in the reference (one percent of the data), its members
cannot all be one another's neighbours. Measured on eight planted contaminations of two percent, 4,080 examples:
mean ROC-AUC of the latent distance .73 with 1,024 and .61 with all, of the gradient distance .84 with either."""

_REFERENCE_SEED = 0
Values = NDArray[np.float64]


class SignalStore(leverage.SketchRows, Protocol):
    """What signals read of a store."""

    @property
    def learning_rates(self) -> NDArray[np.float64]: ...

    def keeps(self, array: str) -> bool: ...

    def draw_norms(self, checkpoint: int) -> NDArray[np.float32]: ...

    def losses(self, checkpoint: int) -> NDArray[np.float32]: ...

    def sketch_rows(self, checkpoint: int, indices: NDArray[np.int64]) -> NDArray[np.float16]: ...

    def latents(self, checkpoint: int, start: int, stop: int) -> NDArray[np.float32]: ...

    def latent_rows(self, checkpoint: int, indices: NDArray[np.int64]) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Signal:
    """One number an example, and what it means."""

    name: str
    title: str
    """how a person says it"""
    unit: str
    """empty for a pure number"""
    meaning: str
    """completes the sentence `… is above 99.9 % of examples: `"""
    needs: tuple[str, ...]
    """arrays of the store that it reads"""
    compute: Callable[[SignalStore], Values]
    """[N], finite, higher = more suspicious"""
    passes: int
    """how often it reads every row of every checkpoint: what it costs"""

    def reason(self, value: float, percentile: float) -> str:
        """A sentence for a human.

        >>> SIGNALS["loss"].reason(3.4567, 99.94)
        'loss 3.46 is above 99.94 % of examples: the model reproduces or predicts it badly'
        """
        return f"{self.title} {value:.3g} is above {percent_text(percentile)} % of examples: {self.meaning}"


def signal_named(name: str) -> Signal:
    """Raises UnknownSignalError, which lists the signals there are."""
    if name not in ALL_SIGNALS:
        raise UnknownSignalError(f"There is no signal {name!r}. The signals are {', '.join(ALL_SIGNALS)}.")
    return ALL_SIGNALS[name]


def signals_of(store: SignalStore) -> list[str]:
    """Names of the signals that this store has, in the order of a ranking's columns."""
    return [*SIGNALS, *(s.name for s in OPTIONAL_SIGNALS.values() if all(map(store.keeps, s.needs)))]


def rows_to_read(store: SignalStore, names: Sequence[str]) -> int:
    """Rows that `compute_signals` will read, for its `advance`."""
    return sum(signal_named(name).passes for name in names) * store.n_examples * store.n_checkpoints


def compute_signals(
    store: SignalStore,
    names: Sequence[str] | None = None,
    progress: Callable[[str], None] | None = None,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Values]:
    """Signals of every example, name -> [N], in the order asked for.

    Args:
        store: a complete store.
        names: which signals; None for all that the store has.
        progress: called with a signal's name before it is computed.
        advance: called with the number of rows read since its last call.

    Raises:
        UnknownSignalError: names the signals there are, before anything is computed.
        QueryError: the store does not keep what a signal needs.
        StoreIncompleteError: rows are missing.
    """
    computed: dict[str, Values] = {}
    for signal in [signal_named(name) for name in (signals_of(store) if names is None else dict.fromkeys(names))]:
        if progress is not None:
            progress(signal.name)
        computed[signal.name] = signal.compute(
            store if advance is None else cast(SignalStore, _Counted(store, advance))
        )
    return computed


class _Counted:
    """A store that tells how many rows are read from it."""

    def __init__(self, store: SignalStore, advance: Callable[[int], None]) -> None:
        self._store, self._advance = store, advance

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def unit_sketches(self, checkpoint: int, start: int, stop: int) -> NDArray[np.float16]:
        self._advance(stop - start)
        return self._store.unit_sketches(checkpoint, start, stop)

    def latents(self, checkpoint: int, start: int, stop: int) -> NDArray[np.float32]:
        self._advance(stop - start)
        return self._store.latents(checkpoint, start, stop)


def _mean_loss(store: SignalStore) -> Values:
    total = np.zeros(store.n_examples)
    for checkpoint in range(store.n_checkpoints):
        total += store.losses(checkpoint)
    return total / store.n_checkpoints


def _self_influence(store: SignalStore) -> Values:
    """One checkpoint at a time: two numbers an example in memory, however many checkpoints there are."""
    total = np.zeros(store.n_examples)
    for checkpoint in range(store.n_checkpoints):
        total += self_influence(store.norms(checkpoint)[None], store.learning_rates[checkpoint : checkpoint + 1])
    return total


def _draw_variance(store: SignalStore) -> Values:
    """Mean over checkpoints of E|g|² - |E g|², over the draws that the store's gradients are the mean of.

    Never below 0, which rounding would else allow where a loss is hardly random.
    """
    total = np.zeros(store.n_examples)
    for checkpoint in range(store.n_checkpoints):
        of_draws, of_mean = store.draw_norms(checkpoint).astype(np.float64), store.norms(checkpoint).astype(np.float64)
        total += np.maximum(np.square(of_draws) - np.square(of_mean), 0.0)
    return total / store.n_checkpoints


def _latent_distance(store: SignalStore) -> Values:
    """Mean Euclidean distance to the 10 nearest latents, averaged over checkpoints.

    Why not the last checkpoint alone: it detects no better (.73 either way), and may have overfitted.
    """
    rows, k = _reference(store.n_examples)
    total = np.zeros(store.n_examples)
    for checkpoint in range(store.n_checkpoints if k else 0):
        reference = store.latent_rows(checkpoint, rows)
        total += knn_distance(_blocks(store, partial(store.latents, checkpoint)), reference, k, rows)
    return total / store.n_checkpoints


def _gradient_distance(store: SignalStore) -> Values:
    """Mean cosine distance to the 10 nearest gradients, averaged over checkpoints.

    Why each checkpoint has its own neighbours: one set for the mean cosine detects worse (.79 against .84).
    """
    rows, k = _reference(store.n_examples)
    total = np.zeros(store.n_examples)
    for checkpoint in range(store.n_checkpoints if k else 0):
        reference = leverage.to_length_one(store.sketch_rows(checkpoint, rows).astype(np.float32))
        directions = _blocks(store, partial(_directions, store, checkpoint))
        total += knn_distance(directions, reference, k, rows, metric="cosine")
    return total / store.n_checkpoints


def _directions(store: SignalStore, checkpoint: int, start: int, stop: int) -> Float32[np.ndarray, "row d_sketch"]:
    return leverage.to_length_one(store.unit_sketches(checkpoint, start, stop).astype(np.float32))


def _reference(n_examples: int) -> tuple[Int[np.ndarray, " reference"], int]:
    """Whom neighbours are sought among (all, or a seeded choice in store order), and how many; 0 in a store of one."""
    if n_examples <= N_REFERENCE:
        return np.arange(n_examples), min(N_NEIGHBOURS, n_examples - 1)
    chosen = np.random.default_rng(_REFERENCE_SEED).choice(n_examples, N_REFERENCE, replace=False)
    return np.sort(chosen), N_NEIGHBOURS


def _blocks(
    store: SignalStore, read: Callable[[int, int], Float32[np.ndarray, "row d"]]
) -> Callable[[], Iterator[tuple[int, Float32[np.ndarray, "row d"]]]]:
    def blocks() -> Iterator[tuple[int, Float32[np.ndarray, "row d"]]]:
        for start, stop in store.blocks():
            yield start, read(start, stop)

    return blocks


SIGNALS: Mapping[str, Signal] = MappingProxyType(
    {
        signal.name: signal
        for signal in (
            Signal(
                name="loss",
                title="loss",
                unit="loss",
                meaning="the model reproduces or predicts it badly",
                needs=("losses",),
                compute=_mean_loss,
                passes=0,
            ),
            Signal(
                name="self_influence",
                title="self-influence",
                unit="loss",
                meaning="training on it moves the model far for its own sake",
                needs=("norms",),
                compute=_self_influence,
                passes=0,
            ),
            Signal(
                name="leverage",
                title="leverage",
                unit="",
                meaning="at single checkpoints few others push the model in its direction",
                needs=("sketches", "norms"),
                compute=leverage.leverage,
                passes=2,
            ),
            Signal(
                name="joint_leverage",
                title="joint leverage",
                unit="",
                meaning="few others push the model in its direction",
                needs=("sketches", "norms"),
                compute=leverage.joint_leverage,
                passes=2,
            ),
            Signal(
                name="unit_leverage",
                title="unit leverage",
                unit="",
                meaning="its gradient points where few others do, however small it is",
                needs=("sketches",),
                compute=leverage.unit_leverage,
                passes=2,
            ),
            Signal(
                name="latent_distance",
                title="latent distance",
                unit="latent units",
                meaning="nothing lies near it in the model's latent space",
                needs=("latents",),
                compute=_latent_distance,
                passes=1,
            ),
            Signal(
                name="gradient_distance",
                title="gradient distance",
                unit="cosine distance",
                meaning="no other example's gradient is like its own",
                needs=("sketches",),
                compute=_gradient_distance,
                passes=1,
            ),
        )
    }
)
"""Every store's signals by name, in the order of a ranking's columns."""

OPTIONAL_SIGNALS: Mapping[str, Signal] = MappingProxyType(
    {
        "draw_variance": Signal(
            name="draw_variance",
            title="variance over draws",
            unit="squared gradient norm",
            meaning="its gradient depends much on the noise that the loss draws",
            needs=("draw_norms", "norms"),
            compute=_draw_variance,
            passes=0,
        )
    }
)
"""Signals of stores that keep what they need."""

ALL_SIGNALS: Mapping[str, Signal] = MappingProxyType({**SIGNALS, **OPTIONAL_SIGNALS})
