"""The sheet of answers as one image, for a slide or an issue: PIL draws it, no browser is needed.

One row a query: the query on the left, ten examples of each of its lists to a line on the right. Twice as many pixels
as its layout says, so that letters stay sharp on any screen.

Letters are those of the font inside Pillow, Latin ones: others show as boxes, where the page shows them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from gradstore.report import pictures
from gradstore.report.answers import MOSAIC, Answer, End, Found, Sheet, Tone, score_text
from gradstore.report.drawing import Example, largest_features

_SCALE = 2
_MARGIN, _QUERY, _BESIDE, _CELL, _GAP, _COLUMNS = 28, 150, 26, 84, 10, 10
_ENDS = _COLUMNS * (_CELL + _GAP) - _GAP
_WIDTH = 2 * _MARGIN + _QUERY + _BESIDE + _ENDS
_WORDS = 52
"""height of the lines under a picture"""

_PAGE, _WELL, _EDGE = "#ffffff", "#eceae4", "#dcd8d0"
_INK, _SOFT = "#1d2126", "#5c646e"
_TONES: dict[Tone, str] = {"cool": "#0f6b6b", "hot": "#b8390e", "plain": "#5c646e"}
_LINES = ("#1d2126", "#b8390e", "#0f6b6b", "#6d757e")

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def png(sheet: Sheet) -> bytes:
    """The sheet as a PNG file, 2,324 pixels wide."""
    parts = [_heading(sheet), *(_answer(answer) for answer in sheet.answers)]
    stream = BytesIO()
    _stacked(parts, _WIDTH).save(stream, format="PNG")
    return stream.getvalue()


def _heading(sheet: Sheet) -> Image.Image:
    facts = " · ".join(f"{name}: {value}" for name, value in sheet.facts.items())
    room = _WIDTH - 2 * _MARGIN
    lines = [(line, 13, _SOFT) for text in (sheet.meaning, facts) for line in _wrapped(text, 13, room)]
    lines += [(line, 13, _TONES["hot"]) for note in sheet.notes for line in _wrapped(note, 13, room)]
    canvas = _canvas(_WIDTH, _MARGIN + 36 + 19 * len(lines) + 8)
    _write(canvas, (_MARGIN, _MARGIN - 6), _fitted(sheet.title, 22, room), 22)
    for number, (line, size, colour) in enumerate(lines):
        _write(canvas, (_MARGIN, _MARGIN + 32 + 19 * number), line, size, colour)
    return canvas


def _answer(answer: Answer) -> Image.Image:
    """A query and its lists, between a rule above and some room below."""
    ends = _stacked([_end(end, answer.largest, answer.is_pictured) for end in answer.ends], _ENDS)
    query = _query(answer)
    canvas = _canvas(_WIDTH, max(ends.height, query.height) // _SCALE + 30)
    ImageDraw.Draw(canvas).line(_box(_MARGIN, 6, _WIDTH - _MARGIN, 6), fill=_EDGE, width=_SCALE)
    canvas.paste(query, _at(_MARGIN, 22))
    canvas.paste(ends, _at(_MARGIN + _QUERY + _BESIDE, 22))
    return canvas


def _query(answer: Answer) -> Image.Image:
    pictures_of_it = _mosaic(answer.examples)
    room = pictures_of_it.height // _SCALE
    canvas = _canvas(_QUERY, room + 22 + 44)
    _write(canvas, (0, 0), "Query", 12, _SOFT)
    canvas.paste(pictures_of_it, _at(0, 22))
    _write(canvas, (0, room + 28), _fitted(answer.query, 14, _QUERY), 14)
    if answer.label is not None:
        _write(canvas, (0, room + 46), _fitted(answer.label, 12, _QUERY), 12, _SOFT)
    return canvas


def _mosaic(examples: Sequence[Example]) -> Image.Image:
    """One example, or the first nine of several in lines of two or three."""
    shown = examples[:MOSAIC]
    columns = 1 if len(shown) <= 1 else 2 if len(shown) <= 4 else 3
    side = (_QUERY - 4 * (columns - 1)) // columns
    canvas = _canvas(_QUERY, -(-len(shown) // columns) * (side + 4))
    for number, example in enumerate(shown):
        canvas.paste(_picture(example, side), _at(number % columns * (side + 4), number // columns * (side + 4)))
    return canvas


def _end(end: End, largest: float, is_pictured: bool) -> Image.Image:
    height = (_CELL if is_pictured else 0) + _WORDS
    n_lines = -(-len(end.found) // _COLUMNS)
    canvas = _canvas(_ENDS, 24 + n_lines * (height + _GAP) + 4)
    _write(canvas, (0, 0), end.name, 14, _TONES[end.tone])
    _write(canvas, (int(_font(14).getlength(end.name)) // _SCALE + 10, 1), end.meaning, 13, _SOFT)
    for number, found in enumerate(end.found):
        cell = _cell(found, end.tone, largest, is_pictured)
        canvas.paste(cell, _at(number % _COLUMNS * (_CELL + _GAP), 24 + number // _COLUMNS * (height + _GAP)))
    return canvas


def _cell(found: Found, tone: Tone, largest: float, is_pictured: bool) -> Image.Image:
    top = _CELL if is_pictured else 0
    canvas = _canvas(_CELL, top + _WORDS)
    if found.example is not None:
        canvas.paste(_picture(found.example, _CELL), (0, 0))
    _write(canvas, (0, top + 3), score_text(found.score, tone), 13)
    draw, length = ImageDraw.Draw(canvas), round(_CELL * abs(found.score) / largest)
    draw.rectangle(_box(0, top + 19, _CELL, top + 21), fill=_WELL)
    if length:
        draw.rectangle(_box(0, top + 19, length, top + 21), fill=_TONES[tone])
    _write(canvas, (0, top + 24), _fitted(found.label or "", 12, _CELL), 12)
    _write(canvas, (0, top + 38), _fitted(found.id, 11, _CELL), 11, _SOFT)
    return canvas


def _picture(example: Example, side: int) -> Image.Image:
    """An example in a square; few pixels are enlarged as they are, many are smoothed."""
    canvas = _canvas(side, side, _WELL)
    if isinstance(example, str):
        _paragraph(canvas, _wrapped(example, 9, side - 8), side)
    elif pictures.is_image(example):
        _paste_centred(canvas, pictures.pil_image(example).convert("RGBA"), pictures.is_tiny(example))
    elif pictures.is_series(example):
        _plot(canvas, example, side)
    else:
        _paragraph(canvas, [f"{name}: {value}" for name, value in largest_features(example)], side)
    ImageDraw.Draw(canvas).rectangle((0, 0, canvas.width - 1, canvas.height - 1), outline=_EDGE, width=_SCALE)
    return canvas


def _paste_centred(canvas: Image.Image, picture: Image.Image, is_tiny: bool) -> None:
    scale = min(canvas.width / picture.width, canvas.height / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    resized = picture.resize(size, Image.Resampling.NEAREST if is_tiny else Image.Resampling.LANCZOS)
    corner = ((canvas.width - size[0]) // 2, (canvas.height - size[1]) // 2)
    canvas.paste(resized, corner, resized)


def _plot(canvas: Image.Image, example: Example, side: int) -> None:
    assert not isinstance(example, str)
    draw, inset = ImageDraw.Draw(canvas), 5
    for number, line in enumerate(pictures.points(example, side - 2 * inset, side - 2 * inset)):
        corners = [(_SCALE * (x + inset), _SCALE * (y + inset)) for x, y in line.tolist()]
        draw.line(corners, fill=_LINES[number % len(_LINES)], width=_SCALE, joint="curve")


def _paragraph(canvas: Image.Image, lines: Sequence[str], side: int) -> None:
    for number, line in enumerate(lines[: (side - 8) // 12]):
        _write(canvas, (4, 3 + 12 * number), _fitted(line, 9, side - 8), 9)


def _canvas(width: int, height: int, colour: str = _PAGE) -> Image.Image:
    return Image.new("RGB", _at(width, height), colour)


def _stacked(parts: Sequence[Image.Image], width: int) -> Image.Image:
    canvas = Image.new("RGB", (_SCALE * width, max(1, sum(part.height for part in parts))), _PAGE)
    top = 0
    for part in parts:
        canvas.paste(part, (0, top))
        top += part.height
    return canvas


def _at(x: int, y: int) -> tuple[int, int]:
    return _SCALE * x, _SCALE * y


def _box(left: int, top: int, right: int, bottom: int) -> tuple[int, int, int, int]:
    return _SCALE * left, _SCALE * top, _SCALE * right, _SCALE * bottom


def _write(canvas: Image.Image, at: tuple[int, int], text: str, size: int, colour: str = _INK) -> None:
    ImageDraw.Draw(canvas).text(_at(*at), _one_line(text), fill=colour, font=_font(size))


@cache
def _font(size: int) -> _Font:
    return ImageFont.load_default(size * _SCALE)


def _one_line(text: str) -> str:
    """What can be drawn: no line breaks, no bytes that are no UTF-8."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())


def _fitted(text: str, size: int, width: int) -> str:
    """As much of a text as has room, with an ellipsis where some is left out."""
    text = _one_line(text)
    if _font(size).getlength(text) <= _SCALE * width:
        return text
    while text and _font(size).getlength(text + "…") > _SCALE * width:
        text = text[:-1]
    return text + "…"


def _wrapped(text: str, size: int, width: int) -> list[str]:
    """A text in lines that have room."""
    lines: list[str] = []
    for word in _one_line(text).split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _font(size).getlength(longer) <= _SCALE * width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
