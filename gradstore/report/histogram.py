"""A histogram of scores as numbers that an SVG draws.

Counts are on a logarithmic scale: thousands of ordinary examples and a tail of three must both be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped
from numpy.typing import NDArray

WIDTH, HEIGHT = 960.0, 252.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 12.0, 40.0
_BINS = 60


@dataclass(frozen=True)
class Bar:
    """One bar in SVG units; `tail` says that only cards' scores or higher ones fall into it."""

    x: float
    y: float
    width: float
    height: float
    text: str
    tail: bool


@dataclass(frozen=True)
class Tick:
    """A place on an axis, and what to write there."""

    at: float
    text: str


@dataclass(frozen=True)
class Histogram:
    """What the template draws."""

    bars: Sequence[Bar]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    n_examples: int
    cut: Tick | None = None
    """a line: about so many examples score higher"""


def histogram(
    scores: Shaped[np.ndarray, " example"], tail_from: float | None, cut: float | None = None, cut_text: str = ""
) -> Histogram:
    """Bars over the finite scores; those that reach `tail_from` are marked, and a line stands at `cut`."""
    finite = np.asarray(scores, dtype=np.float64)[np.isfinite(scores)]
    counts, edges = np.histogram(finite, bins=_BINS)
    top = np.log10(1.0 + max(int(counts.max()), 1))
    return Histogram(
        bars=[_bar(count, edges, i, top, tail_from) for i, count in enumerate(counts.tolist()) if count],
        x_ticks=[Tick(_x(value, edges), f"{value:.6g}") for value in _round_numbers(edges[0], edges[-1])],
        y_ticks=[Tick(_y(count, top), f"{count:,}") for count in _powers_of_ten(int(counts.max()))],
        n_examples=len(finite),
        cut=None if cut is None else Tick(_x(cut, edges), cut_text),
    )


def _bar(count: int, edges: NDArray[np.float64], i: int, top: float, tail_from: float | None) -> Bar:
    left, right, y = _x(edges[i], edges), _x(edges[i + 1], edges), _y(count, top)
    text = f"{count:,} {'example' if count == 1 else 'examples'} with a score from {edges[i]:.4g} to {edges[i + 1]:.4g}"
    tail = tail_from is not None and bool(edges[i + 1] >= tail_from)
    return Bar(left, y, max(right - left - 1.5, 1.0), HEIGHT - BOTTOM - y, text, tail)


def _x(value: float, edges: NDArray[np.float64]) -> float:
    return float(LEFT + (WIDTH - LEFT - RIGHT) * (value - edges[0]) / (edges[-1] - edges[0]))


def _y(count: int, top: float) -> float:
    return float(HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * np.log10(1.0 + count) / top)


def _powers_of_ten(largest: int) -> list[int]:
    return [10**power for power in range(len(str(max(largest, 1))))]


def _round_numbers(low: float, high: float) -> list[float]:
    """About six multiples of 1, 2 or 5 times a power of ten within low..high."""
    rough = (high - low) / 6.0
    power = 10.0 ** np.floor(np.log10(rough))
    step = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= rough)
    return [float(i * step) for i in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]
