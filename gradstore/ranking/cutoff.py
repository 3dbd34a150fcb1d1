"""How many examples are bad: the excess of each signal's upper tail over what its bulk foretells.

Ranks cannot say: a thousandth of any data is above 99.9 %. Values can, where bad examples stand apart. Of each signal
(its logarithm where it is positive) the lower 85 % are taken for ordinary and a skewed normal quantile curve is fitted
to them,

    q(p) = m + s · (exp(g z_p) - 1) / g,    z_p the standard normal quantile

(Tukey's g-distribution: normal at g = 0, a shifted log-normal above). The examples beyond a threshold among the
others, less those that the curve expects there, are an estimate of the bad ones among them; the largest such excess is
the signal's. Signals disagree, each in another way: the estimate is their median and that of their mean, the interval
reaches from the least to the largest of them and of the same fits to the lower 75 %, and two standard errors of a
count further. It is an empirical null (Efron 2004), and shares its limit: bad examples that look ordinary are not
counted, and odd ones that are as they should be are.

Measured on 29 planted contaminations of 2 % (80 of 4,080; clothes, digits, pen strokes; VAE and autoencoder): the
interval held 80 in all, and is wide, often from 20 to 170; the estimate lay between 29 and 100, at the median 72. Other
shares of bad examples have been tried on simulated signals only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64, Shaped
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

_FITTED = (0.85, 0.75)
"""Up to which share of the examples the curve is fitted; the first gives the estimate."""
_LOWEST, _N_QUANTILES = 0.05, 17
_SKEWS = np.linspace(-0.3, 0.8, 45)
_UPPER = 0.15
_FEWEST = 100
_TINY = 1e-12
_LEAST_EXCESS = 2.0


@dataclass(frozen=True)
class CutOff:
    """About how many examples are bad."""

    n: int
    low: int
    high: int
    """likely no fewer, and no more"""
    score: float | None
    """of the last one counted, in a ranking by score; None where none is"""

    def __str__(self) -> str:
        """In words."""
        if self.n == 0:
            return f"About none look bad (likely 0 to {self.high:,})."
        return f"About {self.n:,} look bad (likely {self.low:,} to {self.high:,})."


def estimate_bad(
    signals: Mapping[str, Shaped[np.ndarray, " example"]], scores: Shaped[np.ndarray, " example"] | None = None
) -> CutOff:
    """An estimate of how many examples are bad, with an interval.

    Args:
        signals: one array [N] a signal, finite, higher = more suspicious: those that the ranking combines.
        scores: [N], the ranking's, to read the score at the cut-off from.

    Returns:
        Nothing bad (0 to N) of fewer than 100 examples, which say nothing about a tail.
    """
    n_examples = len(next(iter(signals.values())))
    if n_examples < _FEWEST:
        return CutOff(0, 0, n_examples, None)
    views = [_standardised(values) for values in signals.values()]
    views.append(np.mean(views, axis=0))
    found = np.array([[excess(view, fitted) for view in views] for fitted in _FITTED])
    n = round(float(np.median(found[0])))
    low, high = max(0.0, found.min() - 2 * found.min() ** 0.5), found.max() + 2 * max(found.max(), 1.0) ** 0.5
    ordered = None if scores is None or n == 0 else float(np.sort(scores)[-n])
    return CutOff(n, int(low), min(int(np.ceil(high)), n_examples), ordered)


def estimate_wrong(
    log_odds: Float[np.ndarray, " example"], scores: Shaped[np.ndarray, " example"] | None = None
) -> CutOff:
    """How many labels are wrong: their expected number, by the odds of each (`gradstore.ranking.signals.label_noise`).

    At least as many as are wrong by nine to one, at most those that are right by no more than that, and in any case two
    standard errors of the count.

    Args:
        log_odds: [N], that each label is wrong.
        scores: as for `estimate_bad`.
    """
    wrong = expit(log_odds)
    error = 2 * float((wrong * (1 - wrong)).sum()) ** 0.5
    expected, sure, possible = float(wrong.sum()), int((wrong > 0.9).sum()), int((wrong > 0.1).sum())
    n, low, high = round(expected), min(sure, int(expected - error)), max(possible, math.ceil(expected + error))
    ordered = None if scores is None or n == 0 else float(np.sort(scores)[-n])
    return CutOff(n, max(low, 0), min(high, len(wrong)), ordered)


def excess(values: Float[np.ndarray, " example"], fitted: float) -> float:
    """By how many examples the upper tail exceeds what the `fitted` lower share foretells; 0 for constant values."""
    shares = np.linspace(_LOWEST, fitted, _N_QUANTILES)
    quantiles = np.quantile(values, shares)
    if not quantiles[-1] > quantiles[0]:
        return 0.0
    tail = np.sort(values)[::-1][: max(1, int(_UPPER * len(values)))]
    expected = len(values) * _beyond(tail, *_fit(quantiles, norm.ppf(shares)))
    largest = float((np.arange(1, len(tail) + 1) - expected).max())
    return largest if largest >= _LEAST_EXCESS else 0.0


def _standardised(values: NDArray[Any]) -> Float64[np.ndarray, " example"]:
    """Centred at the median in units of the quartiles' distance; logarithms of what is positive."""
    wide = values.astype(np.float64)
    if wide.min() >= 0 and wide.max() > 0:
        wide = np.log(np.maximum(wide, _TINY * wide.max()))
    lower, median, upper = np.quantile(wide, (0.25, 0.5, 0.75))
    return (wide - median) / (upper - lower) if upper > lower else np.zeros(len(wide))


def _fit(quantiles: Float64[np.ndarray, " share"], normal: Float64[np.ndarray, " share"]) -> tuple[float, float, float]:
    """(m, s, g) with the least squared error; of every g the best m and s are linear regression's."""
    fits = []
    for skew in _SKEWS:
        curve = _curve(normal, skew)
        slope = np.cov(curve, quantiles)[0, 1] / curve.var(ddof=1)
        centre = quantiles.mean() - slope * curve.mean()
        fits.append((float(np.square(centre + slope * curve - quantiles).sum()), float(centre), float(slope), skew))
    _, centre, slope, skew = min(fits)
    return centre, slope, float(skew)


def _curve(normal: Float64[np.ndarray, " share"], skew: float) -> Float64[np.ndarray, " share"]:
    return normal if abs(skew) < _TINY else np.expm1(skew * normal) / skew


def _beyond(
    values: Float64[np.ndarray, " value"], centre: float, slope: float, skew: float
) -> Float64[np.ndarray, " value"]:
    """Share of the fitted distribution that lies above each value."""
    along = (values - centre) / slope
    if abs(skew) < _TINY:
        return np.asarray(norm.sf(along))
    inside = 1.0 + skew * along
    normal = np.log(np.maximum(inside, np.finfo(float).tiny)) / skew
    return np.asarray(norm.sf(normal))
