"""Self-influence: how far a training step on an example moves the model for the example's own sake.

From exact gradient norms, one checkpoint at a time: two numbers an example in memory, however many checkpoints.
"""

from __future__ import annotations

import numpy as np

from gradstore.influence.tracin import self_influence as of_norms
from gradstore.ranking.signals.base import Computation, Signal, SignalStore, Values

_COST = "C numbers an example"


def self_influence(computation: Computation) -> Values:
    """Sum over checkpoints of learning rate times squared gradient norm."""
    store = computation.store
    total = np.zeros(store.n_examples)
    for checkpoint in range(store.n_checkpoints):
        total += _at(store, checkpoint)
    return total


def early(computation: Computation) -> Values:
    """Of the first checkpoint alone."""
    return _at(computation.store, 0)


def late(computation: Computation) -> Values:
    """Of the last checkpoint alone."""
    return _at(computation.store, computation.store.n_checkpoints - 1)


def of_one_layer(computation: Computation) -> Values:
    """The largest over layers of the layer's self-influence over its mean: a gradient that sits in one place."""
    store = computation.store
    by_layer = sum(
        rate * np.square(store.layer_norms(checkpoint, 0, store.n_examples), dtype=np.float64)
        for checkpoint, rate in enumerate(store.learning_rates)
    )
    mean = np.asarray(by_layer).mean(axis=0)
    return np.asarray(np.divide(by_layer, mean, out=np.zeros_like(by_layer), where=mean > 0).max(axis=1))


def _at(store: SignalStore, checkpoint: int) -> Values:
    return of_norms(store.norms(checkpoint)[None], store.learning_rates[checkpoint : checkpoint + 1])


SELF_INFLUENCE = Signal(
    name="self_influence",
    title="self-influence",
    unit="loss",
    meaning="training on it moves the model far for its own sake",
    needs=("norms",),
    compute=self_influence,
    passes=0,
    cost=_COST,
)
EARLY = Signal(
    name="early_self_influence",
    title="early self-influence",
    unit="loss",
    meaning="it pulled hard on the model when little was learned",
    needs=("norms",),
    compute=early,
    passes=0,
    cost=_COST,
    on_request=True,
)
LATE = Signal(
    name="late_self_influence",
    title="late self-influence",
    unit="loss",
    meaning="it still pulls hard on the trained model",
    needs=("norms",),
    compute=late,
    passes=0,
    cost=_COST,
    on_request=True,
)
ONE_LAYER = Signal(
    name="layer_self_influence",
    title="self-influence of one layer",
    unit="",
    meaning="one layer of the model is moved far more by it than by others",
    needs=("layer_norms",),
    compute=of_one_layer,
    passes=0,
    cost="C numbers an example and layer",
)
SIGNALS = (SELF_INFLUENCE, EARLY, LATE, ONE_LAYER)
