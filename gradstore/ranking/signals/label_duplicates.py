"""Duplicates that contradict each other: nearly the same to the model, and labelled differently. One is wrong."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int64

from gradstore.ranking.signals.base import Computation, Signal, Values
from gradstore.ranking.signals.duplicates import nearest_of
from gradstore.ranking.signals.given_labels import given_labels


def contradicting_nearness(computation: Computation) -> Values:
    """As `near_duplicate`, to the nearest example that carries another label; 0 where none is near, or has a label."""
    labels = given_labels(computation.store)

    def contradict(
        rows: Int64[np.ndarray, " row"], near: Int64[np.ndarray, "row near"]
    ) -> Bool[np.ndarray, "row near"]:
        mine, theirs = labels[rows][:, None], labels[near]
        return np.asarray((mine >= 0) & (theirs >= 0) & (mine != theirs))

    return np.maximum(nearest_of(computation, contradict), 0.0)


CONTRADICTING_DUPLICATE = Signal(
    name="contradicting_duplicate",
    title="nearness of a duplicate with another label",
    unit="orders of magnitude",
    meaning="another example is nearly the same to the model and labelled differently",
    needs=("labels", "latents"),
    compute=contradicting_nearness,
    passes=5,
    cost="five passes over the latents, N log N for the neighbours",
)
SIGNALS = (CONTRADICTING_DUPLICATE,)
