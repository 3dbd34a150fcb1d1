"""Clumps: small groups that lie close together and far from everything else.

What is broken in one way often looks the same to a model: blank or noisy pictures, texts of one template. Its members
are each other's neighbours, so distances take them for the most ordinary examples there are, and where they are
enough, robust signals learn to trust them. But from the last of its group to the next example it is a leap: of an
example's distances to others, in ascending order, one is several times that of half its rank. In a cloud, however
dense, none is.

Median of the largest such leap (log10) of the 2 % planted, and what a hundredth of the clean exceed: noise among
clothes .76 and .25, noise among emoji behind EfficientNet .79 and .74, for clock faces and the like are groups too.
Copies are groups of two: `near_duplicate` looks for those.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float64

from gradstore.ranking.signals.base import Computation, Signal, Values
from gradstore.ranking.signals.reference import distances_to_others, wide_reference

_ROWS = 1024
_SMALLEST, _LARGEST_SHARE = 5, 0.05
"""Groups of so many of the reference, up to so large a share of it."""
_NEGLIGIBLE = 1e-6


def clump(computation: Computation) -> Values:
    """log10 of the largest ratio of the distance of the 2j-th nearest to that of the j-th, j from 5 to a twentieth.

    Among 4,096 examples, by Euclidean distance in the 32 widest directions of all checkpoints' latents side by side.
    """
    store = computation.store
    reference = wide_reference(store.n_examples)
    largest = int(_LARGEST_SHARE * len(reference))
    found = np.zeros(store.n_examples)
    if largest < _SMALLEST:
        return found
    directions = computation.widest_directions
    targets = torch.from_numpy(directions.gather(reference))
    little = _NEGLIGIBLE * float((targets - targets.mean(dim=0)).norm(dim=1).mean()) or 1.0
    for start, stop in store.blocks(_ROWS):
        rows = torch.from_numpy(directions.rows(start, stop))
        distances = distances_to_others(rows, targets, reference - start)
        nearest = torch.topk(distances, 2 * largest, dim=1, largest=False).values.numpy()
        found[start:stop] = _leaps(nearest.astype(np.float64) + little, largest).max(axis=1)
    return found


def _leaps(nearest: Float64[np.ndarray, "row k"], largest: int) -> Float64[np.ndarray, "row j"]:
    sizes = np.arange(_SMALLEST, largest + 1)
    return np.asarray(np.log10(nearest[:, 2 * sizes - 1] / nearest[:, sizes - 1]))


CLUMP = Signal(
    name="clump",
    title="apartness of its group",
    unit="orders of magnitude",
    meaning="it is one of a small group that lies close together and far from all else",
    needs=("latents",),
    compute=clump,
    passes=4,
    cost="four passes over the latents, three of them once for duplicates too, 4,096 N operations a direction",
)
SIGNALS = (CLUMP,)
