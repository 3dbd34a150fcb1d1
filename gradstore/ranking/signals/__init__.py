"""Signals: one number an example that may betray a bad one, higher = more suspicious.

Every signal says in words what a high value means, for a ranking that nobody can read is a ranking that nobody
acts on. A signal reads the store, and other signals where it is computed from them, and nothing else. There is a
module a family: loss, self-influence, leverage, distances in latent and gradient space, duplicates, draws, and
scikit-learn's detectors; `registry` lists them, `computing` computes them.
"""

from __future__ import annotations

from gradstore.ranking.signals.base import Computation, Signal, SignalStore, Values
from gradstore.ranking.signals.computing import Computed, compute_signals, rows_to_read
from gradstore.ranking.signals.registry import (
    ALL_SIGNALS,
    OPTIONAL_SIGNALS,
    SIGNALS,
    left_out,
    possible_signals,
    signal_named,
    signals_of,
)

__all__ = [
    "ALL_SIGNALS",
    "OPTIONAL_SIGNALS",
    "SIGNALS",
    "Computation",
    "Computed",
    "Signal",
    "SignalStore",
    "Values",
    "compute_signals",
    "left_out",
    "possible_signals",
    "rows_to_read",
    "signal_named",
    "signals_of",
]
