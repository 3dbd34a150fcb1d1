"""What the bulk of a signal foretells of its upper tail: an empirical null (Efron 2004).

Of a signal (its logarithm where it is positive) the lower 85 % are taken for ordinary and a skewed normal quantile
curve is fitted to them,

    q(p) = m + s · (exp(g z_p) - 1) / g,    z_p the standard normal quantile

(Tukey's g-distribution: normal at g = 0, a shifted log-normal above). Ranks cannot tell a tail that is as long as the
bulk lets one expect from one that is not: a thousandth of any data is above 99.9 %.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Shaped
from scipy.stats import norm

_FITTED = 0.85
"""Up to which share of the examples the curve is fitted."""

_LOWEST, _N_QUANTILES = 0.05, 17
_SKEWS = np.linspace(-0.3, 0.8, 45)
_TINY = 1e-12


def standardised(values: Shaped[np.ndarray, " example"]) -> Float64[np.ndarray, " example"]:
    """Centred at the median in units of the quartiles' distance; logarithms of what is positive.

    Where the quartiles coincide the mean distance to the median is the unit; zeros where all values are equal.
    """
    wide = values.astype(np.float64)
    if wide.min() >= 0 and wide.max() > 0:
        wide = np.log(np.maximum(wide, _TINY * wide.max()))
    lower, median, upper = np.quantile(wide, (0.25, 0.5, 0.75))
    unit = upper - lower if upper > lower else np.abs(wide - median).mean()
    return np.asarray((wide - median) / unit) if unit > 0 else np.zeros(len(wide))


@dataclass(frozen=True)
class Null:
    """The curve, as (m, s, g)."""

    centre: float
    slope: float
    skew: float

    @classmethod
    def of(cls, values: Float[np.ndarray, " example"], fitted: float = _FITTED) -> Null | None:
        """With the least squared error to the quantiles of the `fitted` lower share; None where these are all equal.

        Of every g the best m and s are linear regression's.
        """
        shares = np.linspace(_LOWEST, fitted, _N_QUANTILES)
        quantiles, normal = np.quantile(values, shares), norm.ppf(shares)
        if not quantiles[-1] > quantiles[0]:
            return None
        fits = []
        for skew in _SKEWS:
            curve = _curve(normal, skew)
            slope = np.cov(curve, quantiles)[0, 1] / curve.var(ddof=1)
            centre = quantiles.mean() - slope * curve.mean()
            fits.append((float(np.square(centre + slope * curve - quantiles).sum()), float(centre), float(slope), skew))
        _, centre, slope, skew = min(fits)
        return cls(centre, slope, float(skew))

    def beyond(self, values: Float[np.ndarray, " value"]) -> Float64[np.ndarray, " value"]:
        """Share of the fitted distribution that lies above each value."""
        along = (values - self.centre) / self.slope
        if abs(self.skew) < _TINY:
            return np.asarray(norm.sf(along))
        inside = 1.0 + self.skew * along
        return np.asarray(norm.sf(np.log(np.maximum(inside, np.finfo(float).tiny)) / self.skew))


def _curve(normal: Float64[np.ndarray, " share"], skew: float) -> Float64[np.ndarray, " share"]:
    return normal if abs(skew) < _TINY else np.expm1(skew * normal) / skew
