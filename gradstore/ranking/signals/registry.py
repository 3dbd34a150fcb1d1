"""Every signal by name. A new one is a `Signal` in a module of its own, listed here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from gradstore.errors import UnknownSignalError
from gradstore.ranking.signals import (
    clumps,
    draws,
    duplicates,
    gradient,
    label_duplicates,
    label_noise,
    label_predictions,
    latent,
    leverage,
    library,
    loss,
    self_influence,
)
from gradstore.ranking.signals.base import Signal, SignalStore, as_mapping, has

_ALWAYS = frozenset({"sketches", "norms", "losses", "latents"})

ALL_SIGNALS: Mapping[str, Signal] = MappingProxyType(
    as_mapping(
        *loss.SIGNALS,
        *self_influence.SIGNALS,
        *leverage.SIGNALS,
        *latent.SIGNALS,
        *gradient.SIGNALS,
        *duplicates.SIGNALS,
        *clumps.SIGNALS,
        *label_predictions.SIGNALS,
        *label_noise.SIGNALS,
        *label_duplicates.SIGNALS,
        *library.SIGNALS,
        *draws.SIGNALS,
    )
)
"""In the order of a ranking's columns."""

SIGNALS: Mapping[str, Signal] = MappingProxyType(
    {name: s for name, s in ALL_SIGNALS.items() if _ALWAYS.issuperset(s.needs) and not s.on_request}
)
"""Those that every store has and every ranking shows."""

OPTIONAL_SIGNALS: Mapping[str, Signal] = MappingProxyType(
    {name: s for name, s in ALL_SIGNALS.items() if name not in SIGNALS}
)
"""Those on request, and those of stores that keep what they need."""


def signal_named(name: str) -> Signal:
    """Raises UnknownSignalError, which lists the signals there are."""
    if name not in ALL_SIGNALS:
        raise UnknownSignalError(f"There is no signal {name!r}. The signals are {', '.join(ALL_SIGNALS)}.")
    return ALL_SIGNALS[name]


def signals_of(store: SignalStore) -> list[str]:
    """Names of the signals that a ranking of this store shows unless told otherwise, in the order of its columns."""
    return [name for name in possible_signals(store) if not ALL_SIGNALS[name].on_request]


def possible_signals(store: SignalStore) -> list[str]:
    """Names of the signals that this store has what they need for, those on request too."""
    kept = _kept(store)
    return [name for name, signal in ALL_SIGNALS.items() if kept.issuperset(signal.needs)]


def left_out(store: SignalStore) -> dict[str, Sequence[str]]:
    """Signals that this store cannot have, and what each lacks: `labels`, or an array that the build did not keep."""
    kept = _kept(store)
    lacking = {name: [a for a in signal.needs if a not in kept] for name, signal in ALL_SIGNALS.items()}
    return {name: missing for name, missing in lacking.items() if missing}


def _kept(store: SignalStore) -> set[str]:
    """What signals need and the store has; labels are read for this, so it is asked once for all signals."""
    return {array for array in {array for s in ALL_SIGNALS.values() for array in s.needs} if has(store, array)}
