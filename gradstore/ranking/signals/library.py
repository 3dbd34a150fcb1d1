"""General outlier detectors of scikit-learn on gradients' directions: peers, computed when asked for.

Here to be compared with. On latents an isolation forest had a mean ROC-AUC of .68 over the eight cells of
tests/benchmarks/detection, below every robust signal; on sketches they have not been measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from jaxtyping import Float, Float32

from gradstore.influence.leverage import to_length_one
from gradstore.ranking.signals.base import Computation, Signal, SignalStore, Values
from gradstore.ranking.signals.reference import N_NEIGHBOURS, reference_rows
from gradstore.search.rows import precise_sketches

_TREES, _SEED = 100, 0


class _Detector(Protocol):
    def score_samples(self, rows: Float32[np.ndarray, "row d"], /) -> Float[np.ndarray, " row"]:
        """Lower is more abnormal."""


def isolation_forest(computation: Computation) -> Values:
    """Mean over checkpoints of an isolation forest's score, grown on 1,024 examples (Liu et al. 2008)."""
    from sklearn.ensemble import IsolationForest

    def grown(rows: Float32[np.ndarray, "row d"], k: int) -> _Detector:
        return IsolationForest(n_estimators=_TREES, random_state=_SEED).fit(rows)  # type: ignore[no-any-return]

    return _mean_score(computation.store, grown)


def local_outlier_factor(computation: Computation) -> Values:
    """Mean over checkpoints of the local outlier factor against 1,024 examples (Breunig et al. 2000)."""
    from sklearn.neighbors import LocalOutlierFactor

    def fitted(rows: Float32[np.ndarray, "row d"], k: int) -> _Detector:
        return LocalOutlierFactor(n_neighbors=k, novelty=True).fit(rows)  # type: ignore[no-any-return]

    return _mean_score(computation.store, fitted)


def _mean_score(store: SignalStore, fit: Callable[[Float32[np.ndarray, "row d"], int], _Detector]) -> Values:
    chosen, k = reference_rows(store.n_examples)
    total = np.zeros(store.n_examples)
    for checkpoint in range(store.n_checkpoints if k else 0):
        detector = fit(to_length_one(store.sketch_rows(checkpoint, chosen).astype(np.float32)), min(k, N_NEIGHBOURS))
        for start, stop in store.blocks():
            rows = to_length_one(precise_sketches(store, checkpoint, start, stop))
            total[start:stop] -= detector.score_samples(rows)
    return total / store.n_checkpoints


_COST = "one pass over the sketches, and scikit-learn's time"
ISOLATION_FOREST = Signal(
    name="isolation_forest",
    title="isolation forest",
    unit="",
    meaning="few random cuts set its gradient apart",
    needs=("sketches",),
    compute=isolation_forest,
    passes=1,
    cost=_COST,
    on_request=True,
)
LOCAL_OUTLIER_FACTOR = Signal(
    name="local_outlier_factor",
    title="local outlier factor",
    unit="",
    meaning="its gradient lies where gradients are sparser than among its neighbours",
    needs=("sketches",),
    compute=local_outlier_factor,
    passes=1,
    cost=_COST,
    on_request=True,
)
SIGNALS = (ISOLATION_FOREST, LOCAL_OUTLIER_FACTOR)
