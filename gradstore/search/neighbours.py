"""What every search returns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Int64

if TYPE_CHECKING:
    from gradstore.search.auto import Choice
    from gradstore.search.searchable import Coverage


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The k best rows of every query, best first; among equal scores the lower row first.

    `indices` are store rows. `scores` are in the units of what was searched: influence (loss), cosine, …
    """

    indices: Int64[np.ndarray, "query k"]
    scores: Float32[np.ndarray, "query k"]
    searched: Choice | None = field(default=None, kw_only=True)
    """which search answered, and why, where one was chosen (`gradstore.search.auto`)"""
    coverage: Coverage | None = field(default=None, kw_only=True)
    """how much of the store was searched, where it may be unfinished (`gradstore.search.searchable`)"""
