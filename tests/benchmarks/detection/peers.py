"""What others make of the same data and of the same model's outputs; dependencies of the benchmark alone.

`pip install cleanlab pyod`; those that are not installed are left out. Each is given its best chance: detectors see the
raw examples and, apart, the last checkpoint's latents; cleanlab's predictions come from all checkpoints and the last.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor

from gradstore.store import Store

Rows = NDArray[np.float64]
Scores = dict[str, Rows]
_MOST_FEATURES = 1_500


def outlier_scores(store: Store, examples: NDArray[Any]) -> Scores:
    """[N] each, higher = more suspicious: scikit-learn's and PyOD's detectors, and cleanlab's nearest neighbours."""
    latents = np.asarray(store.latents(store.n_checkpoints - 1, 0, store.n_examples), dtype=np.float64)
    raw = examples.reshape(len(examples), -1).astype(np.float64)
    found: Scores = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for view, rows in {"raw": raw, "latents": latents}.items():
            if rows.shape[1] <= _MOST_FEATURES:
                found |= {f"{name}, {view}": np.asarray(score(rows)) for name, score in _detectors()}
        if importlib.util.find_spec("cleanlab") is not None:
            outlier = importlib.import_module("cleanlab.outlier").OutOfDistribution()
            found["cleanlab outliers, latents"] = -np.asarray(outlier.fit_score(features=latents, verbose=False))
    return found


def _detectors() -> Iterator[tuple[str, Callable[[Rows], Rows]]]:
    yield "isolation forest", lambda rows: -IsolationForest(random_state=0).fit(rows).score_samples(rows)
    yield "local outlier factor", lambda rows: -LocalOutlierFactor().fit(rows).negative_outlier_factor_
    if importlib.util.find_spec("pyod") is not None:
        for name in ("ECOD", "COPOD", "KNN", "PCA", "HBOS"):
            yield f"PyOD {name}", partial(_pyod, name)


def _pyod(name: str, rows: Rows) -> Rows:
    detector = getattr(importlib.import_module(f"pyod.models.{name.lower()}"), name)()
    return np.asarray(detector.fit(rows).decision_scores_, dtype=np.float64)


def label_scores(store: Store, labels: NDArray[np.int64]) -> Scores:
    """Higher = more suspicious: cleanlab's quality scores, negated, and its issues first; none where not installed.

    From predictions averaged over checkpoints, and from the last checkpoint's: what its users have.
    """
    if importlib.util.find_spec("cleanlab") is None:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rank, filters = (importlib.import_module(f"cleanlab.{name}") for name in ("rank", "filter"))
        by_checkpoint = [_probabilities(store, c) for c in range(store.n_checkpoints)]
        mean = np.mean(by_checkpoint, axis=0)
        return {
            "cleanlab self-confidence, averaged": _doubt(rank, labels, mean, "self_confidence"),
            "cleanlab margin, averaged": _doubt(rank, labels, mean, "normalized_margin"),
            "cleanlab issues, averaged": _issues_first(rank, filters, labels, mean),
            "cleanlab self-confidence, last": _doubt(rank, labels, by_checkpoint[-1], "self_confidence"),
            "cleanlab issues, last": _issues_first(rank, filters, labels, by_checkpoint[-1]),
        }


def _probabilities(store: Store, checkpoint: int) -> NDArray[np.float64]:
    probabilities = np.exp(store.predictions(checkpoint, 0, store.n_examples).astype(np.float64))
    return np.asarray(probabilities / probabilities.sum(axis=1, keepdims=True))


def _doubt(rank: Any, labels: NDArray[np.int64], probabilities: NDArray[np.float64], method: str) -> NDArray[Any]:
    return -np.asarray(rank.get_label_quality_scores(labels, probabilities, method=method), dtype=np.float64)


def _issues_first(
    rank: Any, filters: Any, labels: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> NDArray[np.float64]:
    issues = filters.find_label_issues(labels, probabilities, n_jobs=1)
    return np.asarray(issues * 2.0 + _doubt(rank, labels, probabilities, "self_confidence"))
