"""What every search returns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The k best rows of every query, best first; among equal scores the lower row first.

    `indices` are store rows. `scores` are in the units of what was searched: influence (loss), cosine, …
    """

    indices: Int64[np.ndarray, "query k"]
    scores: Float32[np.ndarray, "query k"]
