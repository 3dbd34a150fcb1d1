"""How far an example is from others in the model's latent space."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from jaxtyping import Float32, Int64

from gradstore.ranking.signals.base import Computation, Signal, Values
from gradstore.ranking.signals.latent_space import LatentSpace
from gradstore.ranking.signals.reference import blocks_of, distances_to_others, reference_rows, trusted_reference
from gradstore.ranking.signals.trusted import FIRST_ROUND
from gradstore.search.reference import knn_distance

_ROWS = 1024
_NEGLIGIBLE = 1e-6
Nearest = Iterator[tuple[slice, Float32[np.ndarray, "row k"], Int64[np.ndarray, "row k"]]]


def latent_distance(computation: Computation) -> Values:
    """Mean Euclidean distance to the 10 nearest latents, averaged over checkpoints.

    Why not the last checkpoint alone: it detects no better (.73 either way), and may have overfitted.
    """
    store = computation.store
    rows, k = reference_rows(store.n_examples)
    total = np.zeros(store.n_examples)
    for checkpoint in range(store.n_checkpoints if k else 0):
        reference = store.latent_rows(checkpoint, rows)
        total += knn_distance(blocks_of(store, partial(store.latents, checkpoint)), reference, k, rows)
    return total / store.n_checkpoints


def robust_latent_distance(computation: Computation) -> Values:
    """Mean distance to the 10 nearest trusted examples, in the space of `latent_space`."""
    found = np.zeros(computation.store.n_examples)
    for rows, distances, _ in _nearest_trusted(computation):
        found[rows] = distances.mean(axis=1)
    return found


def latent_isolation(computation: Computation) -> Values:
    """The same over the mean of those ten's own: 1 in a region as dense as its neighbours', whatever density that is.

    Source: the local outlier factor of Breunig et al. 2000, without the smoothing.
    """
    own = computation.values("robust_latent_distance")
    little = _NEGLIGIBLE * own.mean() or 1.0  # equal latents: all are at distance 0, and none is isolated
    found = np.ones(len(own))
    for rows, _, neighbours in _nearest_trusted(computation):
        found[rows] = (own[rows] + little) / (own[neighbours].mean(axis=1) + little)
    return found


def _nearest_trusted(computation: Computation) -> Nearest:
    """Distances to the nearest trusted examples other than oneself, and which those are; nothing in a store of one."""
    store, trusted = computation.store, computation.trusted
    reference, k = trusted_reference(trusted)
    if k:
        space = computation.trusted_space
        targets = torch.from_numpy(space.gather(reference))
        for start, stop in store.blocks(_ROWS):
            yield _nearest(space, slice(start, stop), reference, targets, k)


def _nearest(
    space: LatentSpace, rows: slice, reference: Int64[np.ndarray, " reference"], targets: torch.Tensor, k: int
) -> tuple[slice, Float32[np.ndarray, "row k"], Int64[np.ndarray, "row k"]]:
    distances = distances_to_others(space.rows(rows.start, rows.stop), targets, reference - rows.start)
    nearest = torch.topk(distances, k, dim=1, largest=False)
    return rows, nearest.values.numpy(), reference[nearest.indices.numpy()]


_COST = "four passes over the latents, 4,096 N C d operations"
LATENT_DISTANCE = Signal(
    name="latent_distance",
    title="latent distance",
    unit="latent units",
    meaning="nothing lies near it in the model's latent space",
    needs=("latents",),
    compute=latent_distance,
    passes=1,
    cost="one pass over the latents, 1,024 N C d operations",
)
ROBUST_LATENT_DISTANCE = Signal(
    name="robust_latent_distance",
    title="robust latent distance",
    unit="spreads",
    meaning="no trusted example lies near it in the model's latent space",
    needs=("latents",),
    compute=robust_latent_distance,
    passes=4,
    cost=_COST,
    requires=FIRST_ROUND,
)
LATENT_ISOLATION = Signal(
    name="latent_isolation",
    title="latent isolation",
    unit="",
    meaning="it lies farther from its neighbours than they do from theirs",
    needs=("latents",),
    compute=latent_isolation,
    passes=4,
    cost=_COST,
    requires=(*FIRST_ROUND, "robust_latent_distance"),
)
SIGNALS = (LATENT_DISTANCE, ROBUST_LATENT_DISTANCE, LATENT_ISOLATION)
