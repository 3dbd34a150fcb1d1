"""What the noise of a stochastic loss does to an example's gradient."""

from __future__ import annotations

import numpy as np

from gradstore.ranking.signals.base import Computation, Signal, Values


def draw_variance(computation: Computation) -> Values:
    """Mean over checkpoints of E|g|² - |E g|², over the draws that the store's gradients are the mean of.

    Never below 0, which rounding would else allow where a loss is hardly random.
    """
    store = computation.store
    total = np.zeros(store.n_examples)
    for checkpoint in range(store.n_checkpoints):
        of_draws, of_mean = store.draw_norms(checkpoint).astype(np.float64), store.norms(checkpoint).astype(np.float64)
        total += np.maximum(np.square(of_draws) - np.square(of_mean), 0.0)
    return total / store.n_checkpoints


DRAW_VARIANCE = Signal(
    name="draw_variance",
    title="variance over draws",
    unit="squared gradient norm",
    meaning="its gradient depends much on the noise that the loss draws",
    needs=("draw_norms", "norms"),
    compute=draw_variance,
    passes=0,
    cost="C numbers an example; the build needs --draws 2 or more",
)
SIGNALS = (DRAW_VARIANCE,)
