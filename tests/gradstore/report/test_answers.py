from __future__ import annotations

import re
from html.parser import HTMLParser
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gradstore.report.answers import Answer, End, Found, Sheet, html, score_text
from gradstore.report.grid import png

HOSTILE = """"><script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>{{ 7 * 7 }}"""
IMAGE = np.arange(16, dtype=np.uint8).reshape(1, 4, 4) * 16
EXAMPLES = {"image": IMAGE, "series": np.arange(40.0), "text": "so it goes", "row": np.arange(5), "gone": None}


class Page(HTMLParser):
    """Tags with their attributes, and text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def found(number: int, score: float, **changes: Any) -> Found:
    values: dict[str, Any] = {"id": f"x{number}", "score": score, "label": "cat", "example": IMAGE}
    return Found(**{**values, **changes})


def sheet(**changes: Any) -> Sheet:
    """One query with three proponents and two opponents; `changes` are of the first proponent."""
    ends = [
        End(
            name="Proponents",
            meaning="these lowered it",
            tone="cool",
            found=[found(1, 0.5, **changes), found(2, 0.25), found(3, 0.0)],
        ),
        End(name="Opponents", meaning="these raised it", tone="hot", found=[found(4, -1.0), found(5, -0.125)]),
    ]
    answer = Answer(query="q", label="dog", examples=[IMAGE], ends=ends)
    return Sheet(title="Answers", meaning="What a score says.", answers=[answer], facts={"Store": "s"})


def gone() -> Sheet:
    """As `sheet`, without any picture, and with a note why."""
    (answer,) = sheet().answers
    ends = [
        End(name=e.name, meaning=e.meaning, tone=e.tone, found=[Found(id=f.id, score=f.score) for f in e.found])
        for e in answer.ends
    ]
    return Sheet(title="t", meaning="m", answers=[Answer(query="q", ends=ends)], notes=["The data are gone."])


def size(image: bytes) -> tuple[int, int]:
    return Image.open(BytesIO(image)).size


def test_the_page_says_what_scores_mean_and_shows_both_ends_in_order() -> None:
    text = Page(html(sheet())).text
    for words in ("Answers", "What a score says.", "Store s", "Query q dog", "these raised it"):
        assert words in text
    lists = text.partition("Query")[2]
    assert re.findall(r"\bx\d\b", lists) == ["x1", "x2", "x3", "x4", "x5"]
    assert re.findall(r"[+-][\d.]+", lists) == ["+0.5", "+0.25", "+0", "-1", "-0.125"]


def test_bars_are_measured_by_the_largest_score_of_the_query() -> None:
    widths = re.findall(r'<i style="width: ([\d.]+)%">', html(sheet()))
    assert widths == ["50.0", "25.0", "0.0", "100.0", "12.5"]


def test_scores_that_are_all_zero_are_drawn_too() -> None:
    ends = [End(name="Proponents", meaning="", tone="cool", found=[found(1, 0.0)])]
    empty = Sheet(title="t", meaning="m", answers=[Answer(query="q", ends=ends)])
    assert "+0" in Page(html(empty)).text
    assert size(png(empty))[0] == 2324


def test_a_sign_is_shown_only_where_it_means_something() -> None:
    assert score_text(3.0, "plain") == "3"
    assert score_text(3.0, "hot") == "+3"


def test_without_data_the_page_is_a_table_with_the_reason() -> None:
    page = Page(html(gone()))
    assert "The data are gone." in page.text
    assert not [tag for tag, _ in page.tags if tag == "img"]
    assert [dict(attributes).get("class") for tag, attributes in page.tags if tag == "table"] == ["list", "list"]
    assert "1 x1 +0.5" in page.text
    assert size(png(gone()))[1] < size(png(sheet()))[1]


@pytest.mark.parametrize("kind", EXAMPLES)
def test_every_kind_of_example_can_be_shown(kind: str) -> None:
    shown = sheet(example=EXAMPLES[kind])
    assert "x1" in Page(html(shown)).text
    assert size(png(shown)) == size(png(sheet()))


def test_a_text_is_shown_as_it_is() -> None:
    assert "so it goes" in Page(html(sheet(example="so it goes"))).text
    assert "<b>" not in "".join(re.findall(r'class="text">.*?</p>', html(sheet(example="<b>bold</b>"))))


def test_a_set_of_queries_is_shown_by_its_first_nine() -> None:
    (answer,) = sheet().answers
    many = Sheet(title="t", meaning="m", answers=[Answer(query="mean", examples=[IMAGE] * 12, ends=answer.ends)])
    alts = [attributes["alt"] for tag, attributes in Page(html(many)).tags if tag == "img"]
    assert [alt for alt in alts if alt and alt.startswith("Query")] == [f"Query {n} of the set" for n in range(1, 10)]


def test_the_page_loads_nothing() -> None:
    page = html(sheet(path="https://example.org/1.png"))
    tags = Page(page).tags
    assert not [tag for tag, _ in tags if tag in ("script", "link", "iframe")]
    assert all(str(a["src"]).startswith("data:image/png;base64,") for tag, a in tags if tag == "img")
    assert "default-src 'none'" in page
    assert "url(" not in page


@pytest.mark.parametrize("field", ["id", "label", "path", "example"])
def test_hostile_text_is_shown_not_run(field: str) -> None:
    hostile, plain = Page(html(sheet(**{field: HOSTILE}))), Page(html(sheet(**{field: "plain"})))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert not any(name.startswith("on") for _, attributes in hostile.tags for name in attributes)


@settings(max_examples=20, deadline=None)
@given(st.text())
def test_any_name_can_be_written_and_drawn(name: str) -> None:
    html(sheet(id=name, label=name, example=name)).encode("utf-8")
    png(sheet(id=name, label=name, example=name))


def test_the_image_shows_few_pixels_as_squares() -> None:
    checks = np.indices((4, 4)).sum(axis=0, dtype=np.uint8)[None] % 2 * 255
    drawn = np.asarray(Image.open(BytesIO(png(sheet(example=checks)))).convert("L"))
    left, side = 2 * (28 + 150 + 26), 2 * 84
    column = drawn[:, left + side // 8]  # through the middle of the first pixel column of the first proponent
    runs = [len(run) for run in re.findall(r"1+", "".join("1" if value == 0 else "0" for value in column))]
    assert side // 4 in runs


def test_more_examples_than_fit_a_line_go_on_the_next() -> None:
    def of(n: int) -> Sheet:
        end = End(name="Neighbours", meaning="", tone="plain", found=[found(number, 1.0) for number in range(n)])
        return Sheet(title="t", meaning="m", answers=[Answer(query="q", ends=[end])])

    assert size(png(of(10)))[1] == size(png(of(1)))[1] < size(png(of(11)))[1]


def test_the_same_sheet_gives_the_same_bytes() -> None:
    assert html(sheet()) == html(sheet())
    assert png(sheet()) == png(sheet())
