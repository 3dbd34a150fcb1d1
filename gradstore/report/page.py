"""One page that a person looks at: the most suspicious examples beside the least suspicious.

The page is a single file: pictures are inside it, there is no script, and its content policy forbids it to load
anything. Ids, labels, paths and reasons are other people's text: everything is escaped by the template engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from jaxtyping import Shaped
from jinja2 import Environment, StrictUndefined, Template
from numpy.typing import NDArray

from gradstore.ranking.combine import percent_text
from gradstore.report import histogram, pictures

_BOX = 100.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Card:
    """One example on the page."""

    id: str
    rank: int
    """1 is the most suspicious"""
    score: float
    percentile: float
    """share of the examples, in percent, with a lower score"""
    label: str | None
    reason: str
    picture: NDArray[Any] | None
    """(1, H, W), (3, H, W) or (4, H, W), uint8 or float in 0..1; other shapes are drawn as lines; None: no picture"""
    neighbours: Sequence[NDArray[Any]] = ()
    """pictures of its nearest neighbours, nearest first"""
    path: str | None = None


def render_page(
    *,
    title: str,
    facts: Mapping[str, str],
    suspicious: Sequence[Card],
    ordinary: Sequence[Card],
    scores: Shaped[np.ndarray, " example"],
) -> str:
    """The page as HTML text; write it as UTF-8.

    Args:
        title: its heading.
        facts: what the store holds and how it was made, name -> value, shown in this order.
        suspicious: the most suspicious examples, rank 1 first.
        ordinary: the least suspicious ones.
        scores: [N], every example's score; NaN and infinity are left out of the plot.
    """
    tail_from = min((card.score for card in suspicious), default=None)
    return _template().render(
        title=title,
        facts=facts,
        suspicious=[_view(card) for card in suspicious],
        ordinary=[_view(card) for card in ordinary],
        plot=histogram.histogram(scores, tail_from),
        frame=histogram,
    )


@dataclass(frozen=True)
class _Drawing:
    """Either a PNG address or lines."""

    address: str | None
    lines: Sequence[str]


@dataclass(frozen=True)
class _View:
    """A card with its numbers as text and its arrays as drawings."""

    card: Card
    score: str
    above: str
    drawing: _Drawing | None
    neighbours: Sequence[_Drawing]


def _view(card: Card) -> _View:
    return _View(
        card=card,
        score=f"{card.score:.4g}",
        above=percent_text(card.percentile),
        drawing=None if card.picture is None else _drawing(card.picture),
        neighbours=[_drawing(picture) for picture in card.neighbours],
    )


def _drawing(example: NDArray[Any]) -> _Drawing:
    if pictures.is_image(example):
        return _Drawing(pictures.data_uri(example), ())
    return _Drawing(None, pictures.lines(example, _BOX, _BOX))


@cache
def _template() -> Template:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_encodable, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(files(__package__).joinpath("template.html.j2").read_text(encoding="utf-8"))


def _encodable(value: Any) -> Any:
    """File names may hold bytes that are no UTF-8 (lone surrogates): shown as `?`, or the page could not be written."""
    if type(value) is str:
        return value.encode("utf-8", "replace").decode("utf-8")
    return value
