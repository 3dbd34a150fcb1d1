"""Mean and standard deviation of every feature in one pass, in float64.

Source: Chan, Golub & LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped
from numpy.typing import NDArray


class Moments:
    """Moments of the blocks added so far, for examples of one shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._count = 0
        self._origin: NDArray[np.float64] | None = None
        self._mean, self._squares = np.zeros(shape), np.zeros(shape)
        self.minimum, self.maximum = np.inf, -np.inf

    def add(self, block: Shaped[np.ndarray, "example ..."]) -> None:
        """Take in one or more examples."""
        if self._origin is None:  # values relative to the first example: a constant feature has a deviation of 0
            self._origin = block[0].astype(np.float64)
        values = block - self._origin
        mean = values.mean(axis=0)
        squares = np.square(values - mean).sum(axis=0)
        total, shift = self._count + len(block), mean - self._mean
        self._squares += squares + shift**2 * (self._count * len(block) / total)
        self._mean += shift * (len(block) / total)
        self._count = total
        self.minimum = min(self.minimum, float(block.min()))
        self.maximum = max(self.maximum, float(block.max()))

    @property
    def feature_mean(self) -> Float[np.ndarray, "..."]:
        return self._mean if self._origin is None else self._mean + self._origin

    @property
    def feature_std(self) -> Float[np.ndarray, "..."]:
        """Population standard deviation: divided by n."""
        return np.sqrt(self._squares / max(self._count, 1))

    @property
    def mean(self) -> float:
        """Over all values of all examples."""
        return float(self.feature_mean.mean())

    @property
    def std(self) -> float:
        """Over all values of all examples: within features, and between them."""
        return float(np.sqrt(np.mean(self.feature_std**2) + self.feature_mean.var()))
