"""Examples as plain numbers, without any model: what baselines look at."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Shaped

_MOST_FEATURES = 512
_TREES, _SEED = 100, 0


def raw_features(examples: Shaped[np.ndarray, "example ..."]) -> Float32[np.ndarray, "example feature"]:
    """Every value of an example side by side; of more than 512 a seeded choice, the same for all examples."""
    flat = examples.reshape(len(examples), -1)
    if flat.shape[1] > _MOST_FEATURES:
        chosen = np.random.default_rng(_SEED).choice(flat.shape[1], _MOST_FEATURES, replace=False)
        flat = flat[:, np.sort(chosen)]
    return flat.astype(np.float32)


def raw_isolation_forest(examples: Shaped[np.ndarray, "example ..."]) -> Float64[np.ndarray, " example"]:
    """How few random cuts through raw values set each example apart; higher is more suspicious (Liu et al. 2008)."""
    from sklearn.ensemble import IsolationForest

    features = raw_features(examples)
    forest = IsolationForest(n_estimators=_TREES, random_state=_SEED).fit(features)
    return np.asarray(-forest.score_samples(features), dtype=np.float64)
