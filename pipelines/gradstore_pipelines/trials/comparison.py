"""Is one signal better than another, or only luckier? The difference of two ROC-AUCs, and its noise.

Why not by two intervals: both signals judge the same planted examples, and what is hard for one is hard for the other.
The variance of their difference is then far smaller than that of each, and it is known in closed form (DeLong et al.
1988): an ROC-AUC is the mean of what each planted example contributes, and the mean of what each ordinary one does.

What it does not hold is the luck of a training. Where kinds are planted several times, each time with a training of
its own, the spread between these times counts where it is larger.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist, mean, variance

import numpy as np
from jaxtyping import Bool, Float64, Shaped
from scipy.stats import rankdata

_LEVEL = 0.95


@dataclass(frozen=True)
class Advantage:
    """By how much one ROC-AUC exceeds another, and the variance of that."""

    value: float
    variance: float

    def margin(self, n_compared: int = 1) -> float:
        """Half of the 95 % interval; of several signals that are compared, so wide that all hold at once."""
        return NormalDist().inv_cdf(1 - (1 - _LEVEL) / (2 * n_compared)) * sqrt(self.variance)

    def is_beyond_noise(self, n_compared: int = 1) -> bool:
        return self.value > self.margin(n_compared)


def advantage(
    scores: Shaped[np.ndarray, " example"],
    others: Shaped[np.ndarray, " example"],
    planted: Bool[np.ndarray, " example"],
) -> Advantage:
    """Of `scores` over `others`; of infinite variance where a single example is planted, or a single one is not.

    >>> planted = np.array([True, True, False, False, False])
    >>> advantage(np.array([5, 4, 3, 2, 1]), np.array([1, 1, 1, 1, 1]), planted).value
    0.5
    """
    differences = [a - b for a, b in zip(_placements(scores, planted), _placements(others, planted), strict=True)]
    of_planted = differences[0]
    if min(map(len, differences)) < 2:
        return Advantage(float(of_planted.mean()), float("inf"))
    return Advantage(float(of_planted.mean()), float(sum(d.var(ddof=1) / len(d) for d in differences)))


def over_all(kinds: Sequence[Sequence[Advantage]]) -> Advantage:
    """The mean over kinds, each a sequence of repeats."""
    within = [_of_repeats(repeats) for repeats in kinds]
    return Advantage(mean(a.value for a in within), sum(a.variance for a in within) / len(within) ** 2)


def _of_repeats(repeats: Sequence[Advantage]) -> Advantage:
    values, n = [a.value for a in repeats], len(repeats)
    known = sum(a.variance for a in repeats) / n**2
    return Advantage(mean(values), max(known, variance(values) / n) if n > 1 else known)


def _placements(
    scores: Shaped[np.ndarray, " example"], planted: Bool[np.ndarray, " example"]
) -> tuple[Float64[np.ndarray, " planted"], Float64[np.ndarray, " ordinary"]]:
    """Of each planted example the share of ordinary ones below it, of each ordinary one that of planted ones above."""
    ranks, n_planted = rankdata(scores), int(planted.sum())
    n_ordinary = len(scores) - n_planted
    below = (ranks[planted] - rankdata(scores[planted])) / n_ordinary
    above = 1.0 - (ranks[~planted] - rankdata(scores[~planted])) / n_planted
    return below, above
