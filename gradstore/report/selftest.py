"""The page of a self-test: what every signal finds of known errors, kind by kind, and what these errors look like.

Curves are drawn over the square root of the share that is inspected: what is found in the first percent is what
matters, and what is found in the last half is nothing to anyone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

from gradstore.report.drawing import Drawing, Example, draw
from gradstore.report.templates import template

WIDTH, HEIGHT = 420.0, 250.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 20.0, 10.0, 40.0
_TICKS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
_STYLES = ("first", "second", "third", "fourth", "fifth")


@dataclass(frozen=True, eq=False, kw_only=True)
class Planted:
    """An error that was planted, and what became of it."""

    id: str
    rank: int
    """1 is the most suspicious"""
    example: Example
    label: str | None = None
    was: str | None = None
    """its label before, where another was planted"""


@dataclass(frozen=True, eq=False, kw_only=True)
class KindOnPage:
    """One kind of error."""

    name: str
    meaning: str
    note: str
    """what finds it best, in a sentence"""
    n_planted: int
    n_examples: int
    curves: Mapping[str, Sequence[tuple[float, float]]]
    """name -> (share inspected, share found), the most important first"""
    found: Sequence[Planted] = ()
    """those that rank highest"""
    missed: Sequence[Planted] = ()
    """those that rank lowest"""


@dataclass(frozen=True, eq=False, kw_only=True)
class SelftestPage:
    """All that is shown."""

    title: str
    advice: Sequence[str]
    """sentences: what to rank by"""
    facts: Mapping[str, str]
    notes: Sequence[str]
    """what nothing finds, what was not tested, checks of sanity"""
    signals: Mapping[str, Sequence[float | None]]
    """name -> ROC-AUC, one for each of `kinds`; best first"""
    baselines: Sequence[str]
    """those of the signals that are there to be compared with"""
    compared: Mapping[str, Mapping[str, Mapping[str, str]]]
    """heading -> signal -> figure -> its value and interval in words"""
    kinds: Sequence[KindOnPage]


def render_selftest(page: SelftestPage) -> str:
    """The page as HTML text; write it as UTF-8."""
    return template("selftest.html.j2").render(
        title=page.title,
        page=page,
        rows=[_row(page, name) for name in page.signals],
        views=[_View.of(kind) for kind in page.kinds],
        legend=list(zip(_names_of_curves(page), _STYLES, strict=False)),
        ticks=[(_x(share), f"{100 * share:g} %") for share in _TICKS],
        levels=[(_y(level), f"{100 * level:g} %") for level in (0.0, 0.25, 0.5, 0.75, 1.0)],
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        bottom=HEIGHT - BOTTOM,
        right=WIDTH - RIGHT,
    )


@dataclass(frozen=True)
class Cell:
    """A ROC-AUC, and how strongly its cell is shaded: 0 for chance."""

    text: str
    shade: int
    """in percent"""
    tone: Literal["cool", "hot"]
    is_best: bool


def cell(value: float | None, best: float | None = None) -> Cell:
    """A number on its ground.

    >>> cell(0.75, best=0.75)
    Cell(text='.75', shade=35, tone='cool', is_best=True)
    >>> cell(None).text
    '–'
    """
    if value is None:
        return Cell("–", 0, "cool", False)
    shade = round(70 * min(abs(value - 0.5) * 2, 1.0))
    return Cell(f"{value:.2f}".removeprefix("0"), shade, "cool" if value >= 0.5 else "hot", value == best)


@dataclass(frozen=True)
class _Row:
    name: str
    is_baseline: bool
    cells: Sequence[Cell]
    mean: Cell
    worst: Cell


def _row(page: SelftestPage, name: str) -> _Row:
    values = page.signals[name]
    known = [value for value in values if value is not None]
    best = [_best(page, place) for place in range(len(values))]
    return _Row(
        name=name,
        is_baseline=name in page.baselines,
        cells=[cell(value, of_all) for value, of_all in zip(values, best, strict=True)],
        mean=cell(sum(known) / len(known) if known else None),
        worst=cell(min(known, default=None)),
    )


def _best(page: SelftestPage, place: int) -> float | None:
    return max((row[place] for row in page.signals.values() if row[place] is not None), default=None)  # type: ignore[type-var]


@dataclass(frozen=True)
class _View:
    kind: KindOnPage
    curves: Sequence[tuple[str, str]]
    """style, and SVG points"""
    perfect: str
    strips: Sequence[tuple[str, Sequence[tuple[Planted, Drawing]]]]

    @classmethod
    def of(cls, kind: KindOnPage) -> _View:
        lines = zip(_STYLES, kind.curves.values(), strict=False)
        strips = {"ranked highest": kind.found, "ranked lowest": kind.missed}
        share = kind.n_planted / kind.n_examples
        inspected = [share * (step / 20) ** 2 for step in range(21)]
        return cls(
            kind,
            [(style, _points(line)) for style, line in lines],
            _points([*((at, at / share) for at in inspected), (1.0, 1.0)]),
            [(name, [(one, draw(one.example)) for one in shown]) for name, shown in strips.items() if shown],
        )


def _names_of_curves(page: SelftestPage) -> list[str]:
    return list(dict.fromkeys(name for kind in page.kinds for name in kind.curves))


def _points(line: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_x(share):.1f},{_y(found):.1f}" for share, found in line)


def _x(share: float) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * sqrt(share)


def _y(found: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * found
