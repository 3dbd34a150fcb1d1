"""What kind of bad an example may be, in one word for each that is suspicious.

Rules over what the signals say, the first that holds; none is a proof. Seen on three builds with 80 planted among
4,000 clothes: 80 near copies were all called *duplicate* (and 11 of 4,000 where nothing is copied); of 80 digits 45
*foreign*, 30 *rare but plausible*, 5 not suspected; of 80 rotated clothes 9 *rare but plausible*, 6 *foreign*, 6
*corrupted*, 2 *duplicate*, 57 not suspected. A word says how the model takes an example, not how it came to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from gradstore.ranking.combine import GROUPED, percentile

_EXTREME, _ELSEWHERE, _WITHIN_ITS_CLASS = 95.0, 97.0, 90.0
LABEL_ERROR = "label error"
"""The word for an example that should have another label."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What rules look at: signals, their percentiles, and where an example stands within its class."""

    values: Mapping[str, NDArray[Any]]
    n_examples: int
    class_percentile: Float[np.ndarray, " example"] | None = None

    def percentile(self, name: str) -> Float[np.ndarray, " example"]:
        """Of a signal; 0 everywhere where it was not computed."""
        return percentile(self.values[name]) if name in self.values else np.zeros(self.n_examples)

    def above(self, name: str, value: float) -> Bool[np.ndarray, " example"]:
        """Nowhere where the signal was not computed."""
        found = self.values.get(name)
        return np.zeros(self.n_examples, dtype=bool) if found is None else np.asarray(found >= value)


@dataclass(frozen=True)
class Kind:
    """A word, what it means, and who it fits."""

    name: str
    meaning: str
    fits: Callable[[Evidence], Bool[np.ndarray, " example"]]


def _plausible_in_its_class(evidence: Evidence) -> Bool[np.ndarray, " example"]:
    within = evidence.class_percentile
    return np.zeros(evidence.n_examples, dtype=bool) if within is None else within < _WITHIN_ITS_CLASS


KINDS: tuple[Kind, ...] = (
    Kind(
        LABEL_ERROR,
        "its label is more likely wrong than right",
        lambda evidence: evidence.above("label_error", 0.0),
    ),
    Kind(
        "duplicate",
        "another example is the same or nearly so",
        lambda evidence: evidence.above("near_duplicate", GROUPED["near_duplicate"][0]),
    ),
    Kind("rare but plausible", "its whole class stands out, and it does not within it", _plausible_in_its_class),
    Kind(
        "corrupted",
        "the model cannot make sense of it",
        lambda evidence: evidence.percentile("loss") >= _EXTREME,
    ),
    Kind(
        "foreign",
        "the model makes sense of it, in a way that it has for few others",
        lambda evidence: (
            (evidence.percentile("robust_unit_leverage") >= _ELSEWHERE) | evidence.above("clump", GROUPED["clump"][0])
        ),
    ),
    Kind(
        "rare but plausible",
        "few are like it, but the model treats it as it treats others",
        lambda evidence: np.ones(evidence.n_examples, dtype=bool),
    ),
)
"""In the order in which they are tried; the last fits everyone."""


def kinds(
    evidence: Evidence, suspicious: Bool[np.ndarray, " example"], order: Int[np.ndarray, " row"] | None = None
) -> pa.Array[Any]:
    """A word an example, in store order or in `order`; null for those that are not suspicious, duplicates apart."""
    words = np.full(evidence.n_examples, None, dtype=object)
    for kind in reversed(KINDS):
        fits = kind.fits(evidence)
        words[fits & suspicious if kind.name != "duplicate" else fits] = kind.name
    return pa.array(words if order is None else words[order], pa.string())


def class_percentile(
    scores: Float[np.ndarray, " example"], labels: NDArray[np.int32] | None
) -> Float[np.ndarray, " example"] | None:
    """Share of its class, in percent, that scores lower: a rare class is not thrown out whole. None without labels.

    Examples without a label are judged among themselves.

    >>> class_percentile(np.array([1.0, 2.0, 9.0, 8.0]), np.array([0, 0, 1, 1], dtype=np.int32))
    array([ 0., 50., 50.,  0.])
    """
    if labels is None:
        return None
    found = np.zeros(len(scores))
    for label in np.unique(labels):
        rows = labels == label
        found[rows] = percentile(scores[rows])
    return found
