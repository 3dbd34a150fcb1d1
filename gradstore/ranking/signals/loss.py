"""The loss, and how it went in training. Losses are kept one a checkpoint: these signals read no rows.

What an easy example does: its loss falls early and stays low. What is learned late, or by heart alone, has another
course (Toneva et al. 2019: forgetting; Swayamdipta et al. 2020: data maps).
"""

from __future__ import annotations

import numpy as np

from gradstore.ranking.signals.base import Computation, Signal, Values

_COST = "C numbers an example"


def mean_loss(computation: Computation) -> Values:
    """Mean over checkpoints."""
    store = computation.store
    total = np.zeros(store.n_examples)
    for checkpoint in range(store.n_checkpoints):
        total += store.losses(checkpoint)
    return total / store.n_checkpoints


def loss_spread(computation: Computation) -> Values:
    """Standard deviation over checkpoints, two passes: the mean first, so that a constant loss gives 0."""
    store, mean = computation.store, computation.values("loss")
    total = np.zeros(store.n_examples)
    for checkpoint in range(store.n_checkpoints):
        total += np.square(store.losses(checkpoint) - mean)
    return np.asarray(np.sqrt(total / store.n_checkpoints))


def loss_change(computation: Computation) -> Values:
    """Last minus first checkpoint."""
    store = computation.store
    return np.asarray(store.losses(store.n_checkpoints - 1).astype(np.float64) - store.losses(0))


def forgetting(computation: Computation) -> Values:
    """Sum of what the loss rose by from one checkpoint to the next."""
    store = computation.store
    total = np.zeros(store.n_examples)
    before = store.losses(0).astype(np.float64)
    for checkpoint in range(1, store.n_checkpoints):
        now = store.losses(checkpoint).astype(np.float64)
        total += np.maximum(now - before, 0.0)
        before = now
    return total


LOSS = Signal(
    name="loss",
    title="loss",
    unit="loss",
    meaning="the model reproduces or predicts it badly",
    needs=("losses",),
    compute=mean_loss,
    passes=0,
    cost=_COST,
)
LOSS_SPREAD = Signal(
    name="loss_spread",
    title="spread of the loss",
    unit="loss",
    meaning="the model changed its mind about it in training",
    needs=("losses",),
    compute=loss_spread,
    passes=0,
    cost=_COST,
    requires=("loss",),
)
LOSS_CHANGE = Signal(
    name="loss_change",
    title="change of the loss",
    unit="loss",
    meaning="training hardly lowered its loss, or raised it",
    needs=("losses",),
    compute=loss_change,
    passes=0,
    cost=_COST,
)
FORGETTING = Signal(
    name="forgetting",
    title="forgetting",
    unit="loss",
    meaning="the model had learned it and lost it again",
    needs=("losses",),
    compute=forgetting,
    passes=0,
    cost=_COST,
)
SIGNALS = (LOSS, LOSS_SPREAD, LOSS_CHANGE, FORGETTING)
