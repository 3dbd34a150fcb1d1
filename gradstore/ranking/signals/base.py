"""What a signal is, what it reads of a store, and what it may ask of other signals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float32
from numpy.typing import NDArray

from gradstore.influence.leverage import SketchRows
from gradstore.ranking.combine import percent_text
from gradstore.ranking.signals.latent_space import LatentSpace, WidestDirections

Values = NDArray[np.float64]


class SignalStore(SketchRows, Protocol):
    """What signals read of a store."""

    @property
    def learning_rates(self) -> NDArray[np.float64]: ...

    def keeps(self, array: str) -> bool: ...

    def draw_norms(self, checkpoint: int) -> NDArray[np.float32]: ...

    def layer_norms(self, checkpoint: int, start: int, stop: int) -> NDArray[np.float32]: ...

    def losses(self, checkpoint: int) -> NDArray[np.float32]: ...

    def sketch_rows(self, checkpoint: int, indices: NDArray[np.int64]) -> NDArray[np.float16]: ...

    def latents(self, checkpoint: int, start: int, stop: int) -> NDArray[np.float32]: ...

    def latent_rows(self, checkpoint: int, indices: NDArray[np.int64]) -> NDArray[np.float32]: ...

    def predictions(self, checkpoint: int, start: int, stop: int) -> NDArray[np.float16]: ...

    def labels(self) -> NDArray[np.int32] | None: ...

    def ids(self, start: int, stop: int) -> list[str]: ...


class Computation(Protocol):
    """A store whose signals are being computed: each one once, whoever asks for it."""

    @property
    def store(self) -> SignalStore: ...

    def values(self, name: str) -> Values:
        """Another signal, one of those that the asking one `requires`."""

    @property
    def trusted(self) -> Bool[np.ndarray, " example"]:
        """The examples that a first look does not suspect; see `gradstore.ranking.signals.trusted`."""

    @property
    def trusted_space(self) -> LatentSpace:
        """Latents as trusted examples spread in them."""

    @property
    def widest_directions(self) -> WidestDirections:
        """Latents along the few directions in which all examples spread most."""

    @property
    def neighbour_beliefs(self) -> Float32[np.ndarray, "example class"]:
        """What neighbours say of every example's class; see `gradstore.ranking.signals.label_beliefs`."""


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One number an example, and what it means. Higher is always more suspicious."""

    name: str
    title: str
    """how a person says it"""
    unit: str
    """empty for a pure number"""
    meaning: str
    """completes the sentence `… is above 99.9 % of examples: `"""
    needs: tuple[str, ...]
    """arrays of the store that it reads; `labels` where examples have them"""
    compute: Callable[[Computation], Values] = field(repr=False)
    """[N], finite"""
    passes: int
    """how often it reads every row of every checkpoint"""
    cost: str
    """what it takes, in words, with N examples, C checkpoints, k numbers a sketch and d a latent"""
    requires: tuple[str, ...] = ()
    """names of the signals that it is computed from"""
    on_request: bool = False
    """left out of a ranking's columns unless named: it costs much, or says little that others do not"""

    def reason(self, value: float, percentile: float) -> str:
        """A sentence for a human.

        >>> from gradstore.ranking.signals import SIGNALS
        >>> SIGNALS["loss"].reason(3.4567, 99.94)
        'loss 3.46 is above 99.94 % of examples: the model reproduces or predicts it badly'
        """
        return f"{self.title} {value:.3g} is above {percent_text(percentile)} % of examples: {self.meaning}"


def has(store: SignalStore, array: str) -> bool:
    """Whether a store keeps an array, or has `labels`: of two classes at least, for one class says nothing."""
    if array != "labels":
        return store.keeps(array)
    labels = store.labels()
    return labels is not None and len(np.unique(labels[labels >= 0])) > 1


def as_mapping(*signals: Signal) -> Mapping[str, Any]:
    """By name, in this order."""
    return {signal.name: signal for signal in signals}
