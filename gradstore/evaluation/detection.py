"""How well a score finds planted examples: ROC-AUC, the detection curve, and what the first n hold.

Ties are broken by luck, in expectation: a group of equal scores gives up its planted examples evenly. That makes
the curve independent of row order, and the identity between curve and ROC-AUC exact with ties as well.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from sklearn.metrics import roc_auc_score

from gradstore.errors import QueryError, ShapeError


def roc_auc(scores: Shaped[np.ndarray, " example"], planted: Bool[np.ndarray, " example"]) -> float:
    """Probability that a planted example scores above an ordinary one; 0.5 is chance.

    Raises:
        ShapeError: one score an example is needed.
        QueryError: none or all of the examples are planted.
    """
    _require_both(scores, planted)
    return float(roc_auc_score(planted, scores))


def detection_curve(
    scores: Shaped[np.ndarray, " example"], planted: Bool[np.ndarray, " example"]
) -> Float[np.ndarray, " example"]:
    """Fraction of the planted examples among the k most suspicious, for k = 1..N; expected value over ties.

    Raises:
        ShapeError: one score an example is needed.
        QueryError: none or all of the examples are planted.

    >>> detection_curve(np.array([3.0, 2.0, 1.0]), np.array([True, False, False]))
    array([1., 1., 1.])
    """
    _require_both(scores, planted)
    order = _most_suspicious_first(scores)
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1) + 1
    found = np.cumsum(planted[order])[ends - 1]
    inspected = np.arange(1, len(scores) + 1)
    expected = np.interp(inspected, np.append(0, ends), np.append(0, found))
    return np.asarray(expected / planted.sum(), dtype=np.float64)


def mean_detection(scores: Shaped[np.ndarray, " example"], planted: Bool[np.ndarray, " example"]) -> float:
    """D, the mean of the detection curve over k = 1..N."""
    return float(detection_curve(scores, planted).mean())


def mean_detection_from_auc(auc: float, n_planted: int, n_examples: int) -> float:
    """D in closed form: 1 - [(N-n)(1-A) + (n-1)/2] / N.

    >>> mean_detection_from_auc(1.0, n_planted=1, n_examples=50)
    1.0
    """
    return 1.0 - ((n_examples - n_planted) * (1.0 - auc) + (n_planted - 1) / 2.0) / n_examples


def found_in_first(
    scores: Shaped[np.ndarray, " example"], planted: Bool[np.ndarray, " example"], first: int | None = None
) -> int:
    """How many planted examples stand among the `first` most suspicious, ties in row order as in the ranking.

    Args:
        first: how many examples are inspected; None for as many as are planted.
    """
    _require_both(scores, planted)
    inspected = int(planted.sum()) if first is None else first
    return int(planted[_most_suspicious_first(scores)[:inspected]].sum())


def _most_suspicious_first(scores: Shaped[np.ndarray, " example"]) -> Int[np.ndarray, " example"]:
    return np.argsort(-scores.astype(np.float64), kind="stable")


def _require_both(scores: Shaped[np.ndarray, " example"], planted: Bool[np.ndarray, " example"]) -> None:
    if scores.shape != planted.shape or scores.ndim != 1:
        raise ShapeError(f"scores {scores.shape} and planted {planted.shape} must both be [n_examples].")
    if not 0 < planted.sum() < len(planted):
        raise QueryError(
            f"{planted.sum()} of {len(planted)} examples are planted; "
            "detection needs at least one planted and one ordinary example."
        )
