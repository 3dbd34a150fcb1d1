"""One page that a person looks at: the most suspicious examples beside the least suspicious.

The page is a single file: pictures are inside it, there is no script, and its content policy forbids it to load
anything. Ids, labels, paths and reasons are other people's text: everything is escaped by the template engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from gradstore.ranking.combine import percent_text
from gradstore.ranking.cutoff import CutOff
from gradstore.report import histogram
from gradstore.report.drawing import Drawing, Example, draw, draw_small
from gradstore.report.templates import template


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
    picture: Example | None
    """see `gradstore.report.drawing`; None: no picture"""
    neighbours: Sequence[Example] = ()
    """pictures of its nearest neighbours, nearest first"""
    path: str | None = None
    kind: str | None = None
    """what may be wrong with it, in a word; None where nothing is suspected"""


def render_page(
    *,
    title: str,
    facts: Mapping[str, str],
    suspicious: Sequence[Card],
    ordinary: Sequence[Card],
    scores: Shaped[np.ndarray, " example"],
    cut_off: CutOff | None = None,
) -> str:
    """The page as HTML text; write it as UTF-8.

    Args:
        title: its heading.
        facts: what the store holds and how it was made, name -> value, shown in this order.
        suspicious: the most suspicious examples, rank 1 first.
        ordinary: the least suspicious ones.
        scores: [N], every example's score; NaN and infinity are left out of the plot.
        cut_off: how many examples seem bad: a line in the plot, and a sentence.
    """
    tail_from = min((card.score for card in suspicious), default=None)
    return template("ranking.html.j2").render(
        title=title,
        facts=facts,
        suspicious=[_view(card) for card in suspicious],
        ordinary=[_view(card) for card in ordinary],
        plot=_plot(scores, tail_from, cut_off),
        cut_off=cut_off,
        frame=histogram,
    )


def _plot(
    scores: Shaped[np.ndarray, " example"], tail_from: float | None, cut_off: CutOff | None
) -> histogram.Histogram:
    if cut_off is None or cut_off.score is None:
        return histogram.histogram(scores, tail_from)
    return histogram.histogram(scores, tail_from, cut_off.score, f"about {cut_off.n:,} seem bad")


@dataclass(frozen=True)
class _View:
    """A card with its numbers as text and its arrays as drawings."""

    card: Card
    score: str
    above: str
    drawing: Drawing | None
    neighbours: Sequence[Drawing]


def _view(card: Card) -> _View:
    return _View(
        card=card,
        score=f"{card.score:.4g}",
        above=percent_text(card.percentile),
        drawing=None if card.picture is None else draw(card.picture),
        neighbours=[draw_small(picture) for picture in card.neighbours],
    )
