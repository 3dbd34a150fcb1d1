"""How far an example is from others in the model's latent space."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from gradstore.influence.leverage import to_length_one
from gradstore.ranking.signals.base import Computation, Signal, Values
from gradstore.ranking.signals.reference import (
    blocks_of,
    distances_to_others,
    isolation,
    reference_rows,
    trusted_reference,
)
from gradstore.ranking.signals.trusted import FIRST_ROUND
from gradstore.search.reference import knn_distance

_ROWS = 1024
_MANY = 30


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
    """Mean distance to the 30 nearest trusted examples, in the space of `latent_space`.

    Why more than elsewhere: of a hundred bad examples that are alike a dozen may be trusted, and they must not be all
    the neighbours the others have. ROC-AUC of tales among Reuters news .95 with 10 and 1.00 with 30; others .01 less.
    """
    store, space = computation.store, computation.trusted_space
    reference, k = trusted_reference(computation.trusted, n_neighbours=_MANY)
    found = np.zeros(store.n_examples)
    if k:
        targets = torch.from_numpy(space.gather(reference))
        for start, stop in store.blocks(_ROWS):
            distances = distances_to_others(torch.from_numpy(space.rows(start, stop)), targets, reference - start)
            found[start:stop] = torch.topk(distances, k, dim=1, largest=False).values.mean(dim=1).numpy()
    return found


def latent_isolation(computation: Computation) -> Values:
    """How much farther it lies from its 10 nearest trusted examples than they from theirs, in the same space."""
    store, space = computation.store, computation.trusted_space
    reference, k = trusted_reference(computation.trusted)
    if not k:
        return np.ones(store.n_examples)
    targets = torch.from_numpy(space.gather(reference))
    return isolation(blocks_of(store, space.rows), targets, reference, k)


def robust_latent_direction(computation: Computation) -> Values:
    """Mean cosine distance to the 10 nearest trusted, of all checkpoints' latents side by side, seen from their mean.

    Why beside distances: what a model makes little of lies near the middle, where nothing is far. ROC-AUC of gibberish
    among Reuters news .94, where robust latent distance has .52; of tales there .24 and 1.00.
    """
    store = computation.store
    reference, k = trusted_reference(computation.trusted)
    if not k:
        return np.zeros(store.n_examples)
    space = computation.trusted_space.not_whitened()
    targets = to_length_one(space.gather(reference))
    directions = blocks_of(store, lambda start, stop: to_length_one(space.rows(start, stop)))
    return knn_distance(directions, targets, k, reference, metric="cosine").astype(np.float64)


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
    requires=FIRST_ROUND,
)
ROBUST_LATENT_DIRECTION = Signal(
    name="robust_latent_direction",
    title="robust latent direction",
    unit="cosine distance",
    meaning="no trusted example lies in its direction in the model's latent space",
    needs=("latents",),
    compute=robust_latent_direction,
    passes=4,
    cost=_COST,
    requires=FIRST_ROUND,
)
SIGNALS = (LATENT_DISTANCE, ROBUST_LATENT_DISTANCE, LATENT_ISOLATION, ROBUST_LATENT_DIRECTION)
