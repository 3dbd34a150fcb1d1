"""Answers as a picture: one row a query, with the examples found for it beside it.

Two forms of the same sheet: a page (`html`), one file that loads nothing, and an image (`png`). Colour says which end
of a list an example is from, and so do heading and sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gradstore.report.drawing import Drawing, Example, draw, draw_small
from gradstore.report.templates import template

Tone = Literal["cool", "hot", "plain"]

MOSAIC = 9
"""of a whole set of queries that is asked as one, so many are shown"""


@dataclass(frozen=True, eq=False, kw_only=True)
class Found:
    """An example that answers a query."""

    id: str
    score: float
    label: str | None = None
    path: str | None = None
    example: Example | None = None
    """None where the data are gone"""


@dataclass(frozen=True, eq=False, kw_only=True)
class End:
    """One list of a query: its proponents, its opponents, its neighbours."""

    name: str
    meaning: str
    tone: Tone
    found: Sequence[Found]


@dataclass(frozen=True, eq=False, kw_only=True)
class Answer:
    """A query and its lists."""

    query: str
    label: str | None = None
    examples: Sequence[Example] = ()
    """the query's; several where a set was asked as one; none where the data are gone"""
    ends: Sequence[End]

    @property
    def largest(self) -> float:
        """The largest score in absolute value, 1 where all are 0."""
        return max((abs(found.score) for end in self.ends for found in end.found), default=0.0) or 1.0

    @property
    def is_pictured(self) -> bool:
        return any(found.example is not None for end in self.ends for found in end.found)


@dataclass(frozen=True, eq=False, kw_only=True)
class Sheet:
    """All that is shown."""

    title: str
    meaning: str
    """what the sign and the unit of a score say"""
    answers: Sequence[Answer]
    facts: Mapping[str, str] = field(default_factory=dict)
    """how the answers were found, name -> value, in this order"""
    notes: Sequence[str] = ()
    """sentences that a reader must know: what is missing"""


def html(sheet: Sheet) -> str:
    """The sheet as a page; write it as UTF-8."""
    return template("answers.html.j2").render(
        title=sheet.title, sheet=sheet, answers=[_view(answer) for answer in sheet.answers]
    )


def score_text(score: float, tone: Tone) -> str:
    """A score to three digits, with its sign where it has a meaning.

    >>> score_text(0.12345, "cool"), score_text(-1.5, "hot"), score_text(20.0, "plain")
    ('+0.123', '-1.5', '20')
    """
    return f"{score:.3g}" if tone == "plain" else f"{score:+.3g}"


@dataclass(frozen=True)
class _Cell:
    found: Found
    score: str
    share: float
    """of the largest score, in percent"""
    drawing: Drawing | None


@dataclass(frozen=True)
class _EndView:
    end: End
    cells: Sequence[_Cell]
    is_wide: bool
    is_text: bool


@dataclass(frozen=True)
class _AnswerView:
    answer: Answer
    drawings: Sequence[Drawing]
    ends: Sequence[_EndView]


def _view(answer: Answer) -> _AnswerView:
    drawings = [draw(answer.examples[0])] if len(answer.examples) == 1 else list(map(draw_small, answer.examples))
    return _AnswerView(answer, drawings[:MOSAIC], [_end_view(end, answer.largest) for end in answer.ends])


def _end_view(end: End, largest: float) -> _EndView:
    cells = [
        _Cell(
            found=found,
            score=score_text(found.score, end.tone),
            share=100 * abs(found.score) / largest,
            drawing=None if found.example is None else draw(found.example),
        )
        for found in end.found
    ]
    drawings = [cell.drawing for cell in cells if cell.drawing is not None]
    return _EndView(end, cells, any(d.is_wide for d in drawings), any(bool(d.text) for d in drawings))
