"""Signals: one number an example that may betray a bad one, higher = more suspicious.

Every signal says in words what a high value means, for a ranking that nobody can read is a ranking that nobody
acts on. `SIGNALS` is the registry; a signal reads the store and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import numpy as np
from jaxtyping import Float32, Int
from numpy.typing import NDArray

from gradstore.errors import UnknownSignalError
from gradstore.influence import leverage
from gradstore.influence.tracin import self_influence
from gradstore.ranking.combine import percent_text
from gradstore.search.latent import knn_distance
from gradstore.search.side_by_side import unit_blocks, unit_reference

N_NEIGHBOURS = 10
N_REFERENCE = 8192
"""Neighbours are sought among this many examples: linear in N, and dense enough to measure how lonely a row is."""

_REFERENCE_SEED = 0
Values = NDArray[np.float64]


class SignalStore(leverage.SketchRows, Protocol):
    """What signals read of a store."""

    @property
    def learning_rates(self) -> NDArray[np.float64]: ...

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

    def reason(self, value: float, percentile: float) -> str:
        """A sentence for a human.

        >>> SIGNALS["loss"].reason(3.4567, 99.94)
        'loss 3.46 is above 99.94 % of examples: the model reproduces or predicts it badly'
        """
        return f"{self.title} {value:.3g} is above {percent_text(percentile)} % of examples: {self.meaning}"


def signal_named(name: str) -> Signal:
    """Raises UnknownSignalError, which lists the signals there are."""
    if name not in SIGNALS:
        raise UnknownSignalError(f"There is no signal {name!r}. The signals are {', '.join(SIGNALS)}.")
    return SIGNALS[name]


def compute_signals(
    store: SignalStore, names: Sequence[str] | None = None, progress: Callable[[str], None] | None = None
) -> dict[str, Values]:
    """Signals of every example, name -> [N], in the order asked for.

    Args:
        store: a complete store.
        names: which signals; None for all.
        progress: called with a signal's name before it is computed.

    Raises:
        UnknownSignalError: names the signals there are, before anything is computed.
        StoreIncompleteError: rows are missing.
    """
    computed: dict[str, Values] = {}
    for signal in [signal_named(name) for name in (SIGNALS if names is None else dict.fromkeys(names))]:
        if progress is not None:
            progress(signal.name)
        computed[signal.name] = signal.compute(store)
    return computed


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


def _latent_distance(store: SignalStore) -> Values:
    """Mean over checkpoints of the mean Euclidean distance to the 10 nearest latents."""
    rows, k = _reference(store.n_examples)
    if k < 1:
        return np.zeros(store.n_examples)
    total = np.zeros(store.n_examples)
    for checkpoint in range(store.n_checkpoints):
        total += knn_distance(_latent_blocks(store, checkpoint), store.latent_rows(checkpoint, rows), k, rows)
    return total / store.n_checkpoints


def _gradient_distance(store: SignalStore) -> Values:
    """Mean cosine distance to the 10 nearest gradients, a cosine being the mean over checkpoints."""
    rows, k = _reference(store.n_examples)
    if k < 1:
        return np.zeros(store.n_examples)
    distances = knn_distance(unit_blocks(store), unit_reference(store, rows), k, rows, metric="cosine")
    return distances.astype(np.float64)


def _reference(n_examples: int) -> tuple[Int[np.ndarray, " reference"], int]:
    """Whom neighbours are sought among (all, or a seeded choice in store order), and how many are sought."""
    if n_examples <= N_REFERENCE:
        return np.arange(n_examples), min(N_NEIGHBOURS, n_examples - 1)
    chosen = np.random.default_rng(_REFERENCE_SEED).choice(n_examples, N_REFERENCE, replace=False)
    return np.sort(chosen), N_NEIGHBOURS


def _latent_blocks(
    store: SignalStore, checkpoint: int
) -> Callable[[], Iterator[tuple[int, Float32[np.ndarray, "row d_latent"]]]]:
    def blocks() -> Iterator[tuple[int, Float32[np.ndarray, "row d_latent"]]]:
        for start, stop in store.blocks():
            yield start, store.latents(checkpoint, start, stop)

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
            ),
            Signal(
                name="self_influence",
                title="self-influence",
                unit="loss",
                meaning="training on it moves the model far for its own sake",
                needs=("norms",),
                compute=_self_influence,
            ),
            Signal(
                name="leverage",
                title="leverage",
                unit="",
                meaning="at single checkpoints few others push the model in its direction",
                needs=("sketches", "norms"),
                compute=leverage.leverage,
            ),
            Signal(
                name="joint_leverage",
                title="joint leverage",
                unit="",
                meaning="few others push the model in its direction",
                needs=("sketches", "norms"),
                compute=leverage.joint_leverage,
            ),
            Signal(
                name="unit_leverage",
                title="unit leverage",
                unit="",
                meaning="its gradient points where few others do, however small it is",
                needs=("sketches",),
                compute=leverage.unit_leverage,
            ),
            Signal(
                name="latent_distance",
                title="latent distance",
                unit="latent units",
                meaning="nothing lies near it in the model's latent space",
                needs=("latents",),
                compute=_latent_distance,
            ),
            Signal(
                name="gradient_distance",
                title="gradient distance",
                unit="cosine distance",
                meaning="no other example's gradient is like its own",
                needs=("sketches",),
                compute=_gradient_distance,
            ),
        )
    }
)
"""Every signal by name, in the order of a ranking's columns."""
