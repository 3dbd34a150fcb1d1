"""What an example looks like on a page: an image, lines, its text, or its largest features.

An image is (1 or 3 or 4, H, W), a series is floats [T] or [T, C], a text is a `str`; of any other array the largest
features are listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy.typing import NDArray

from gradstore.report import pictures

Example = NDArray[Any] | str

_BOX = 100.0
_LONGEST_TEXT = 400
_MOST_FEATURES = 6


@dataclass(frozen=True)
class Drawing:
    """One of the four; the others are empty."""

    address: str = ""
    """of a PNG inside the page"""
    is_tiny: bool = False
    """of few pixels, which are shown as squares"""
    lines: Sequence[str] = ()
    """SVG points in a box of 100 x 100"""
    text: str = ""
    features: Sequence[tuple[str, str]] = ()
    """name and value, the largest first"""

    @property
    def is_wide(self) -> bool:
        """Whether it is read rather than looked at."""
        return not self.address and not self.lines


def draw(example: Example) -> Drawing:
    """An example as it is shown."""
    if isinstance(example, str):
        return Drawing(text=shortened(example))
    if pictures.is_image(example):
        return Drawing(address=pictures.data_uri(example), is_tiny=pictures.is_tiny(example))
    if pictures.is_series(example):
        return Drawing(lines=pictures.lines(example, _BOX, _BOX))
    return Drawing(features=largest_features(example))


def draw_small(example: Example) -> Drawing:
    """The same where there is no room to read: arrays that are no image are lines."""
    if isinstance(example, str) or pictures.is_image(example):
        return draw(example)
    return Drawing(lines=pictures.lines(example, _BOX, _BOX))


def shortened(text: str) -> str:
    """A text's beginning.

    >>> shortened("word " * 100)[-7:]
    'd word…'
    """
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT].rstrip() + "…"


def largest_features(example: Shaped[np.ndarray, "..."]) -> list[tuple[str, str]]:
    """Where an array is largest in absolute value, and the values; the lower index first among equals.

    >>> largest_features(np.array([0.5, -2.0, 0.0]))
    [('1', '-2'), ('0', '0.5'), ('2', '0')]
    """
    values = np.asarray(example)
    size = np.abs(values.astype(np.float64)).ravel()
    size = np.where(np.isfinite(size), size, np.inf)  # what is not finite is worth seeing first
    places = np.argsort(-size, kind="stable")[:_MOST_FEATURES]
    return [(_index(place, values.shape), f"{values.flat[place]:.4g}") for place in places.tolist()]


def _index(place: int, shape: tuple[int, ...]) -> str:
    return ", ".join(str(int(part)) for part in np.unravel_index(place, shape))
