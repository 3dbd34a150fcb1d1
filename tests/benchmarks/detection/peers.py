"""What cleanlab says of the same model's predictions; a benchmark's dependency only (`pip install cleanlab`)."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradstore.store import Store

Scores = dict[str, NDArray[np.float64]]


def cleanlab_scores(store: Store, labels: NDArray[np.int64]) -> Scores:
    """Higher = more suspicious: its quality scores, negated, and its issues first; nothing where it is not installed.

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
