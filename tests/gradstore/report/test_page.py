from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradstore.ranking.cutoff import CutOff
from gradstore.report.histogram import LEFT, RIGHT, WIDTH, histogram
from gradstore.report.page import Card, render_page

HOSTILE = """"><script>alert('x')</script><img src=http://evil.example/x onerror=alert(1)>&amp;{{ 7 * 7 }}"""
VOID = {"meta", "img"}


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and text; complains about tags that do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def card(rank: int = 1, **changes: Any) -> Card:
    values: dict[str, Any] = {
        "id": f"train/{rank}.png",
        "rank": rank,
        "score": 12.3456,
        "percentile": 99.97,
        "label": "boot",
        "reason": "loss 9 is above 99.9 % of examples",
        "picture": np.full((1, 4, 4), rank % 256, dtype=np.uint8),
        "neighbours": [np.zeros((1, 4, 4), dtype=np.uint8)] * 3,
    }
    return Card(**{**values, **changes})


def render(
    suspicious: list[Card] | None = None,
    ordinary: list[Card] | None = None,
    title: str = "t",
    facts: dict[str, str] | None = None,
) -> str:
    first = [card()] if suspicious is None else suspicious
    scores = np.random.default_rng(0).exponential(size=500)
    return render_page(title=title, facts=facts or {}, suspicious=first, ordinary=ordinary or [], scores=scores)


def test_a_card_says_all_it_knows() -> None:
    text = Page(render([card(path="/data/1.png")])).text
    for word in ("# 1", "12.35", "above 99.97 %", "train/1.png", "/data/1.png", "boot", "loss 9 is above"):
        assert word in text


def test_the_page_shows_title_facts_and_both_lists() -> None:
    page = Page(render([card(1), card(2)], [card(900)], title="Digits", facts={"Model": "vae", "Examples": "1,797"}))
    assert "Digits" in page.text
    assert "Model vae Examples 1,797" in page.text
    assert [attributes["class"] for attributes in page.all("article")] == [
        "card suspicious",
        "card suspicious",
        "card ordinary",
    ]


def test_every_picture_has_words_for_those_who_do_not_see_it() -> None:
    page = Page(render([card(picture=None), card(2), card(3, picture=np.arange(50.0)), card(4, picture=np.arange(5))]))
    assert all(attributes["alt"] for attributes in page.all("img"))
    assert all(attributes["aria-label"] for attributes in page.all("svg"))
    assert page.all("img")[-1]["alt"] == "Neighbour 3 of train/4.png"
    assert page.all("table")[-1]["aria-label"] == "Example train/4.png: its largest features"


def test_the_page_loads_nothing() -> None:
    html = render([card(path="https://example.org/1.png", reason="see http://example.org")])
    page = Page(html)
    assert not page.all("script") + page.all("link") + page.all("iframe")
    assert all(str(attributes["src"]).startswith("data:image/png;base64,") for attributes in page.all("img"))
    assert "url(" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html


@pytest.mark.parametrize("field", ["id", "label", "reason", "path"])
def test_hostile_text_in_a_card_is_shown_not_run(field: str) -> None:
    hostile: dict[str, Any] = {field: HOSTILE}
    harmless: dict[str, Any] = {field: "plain"}
    page, plain = Page(render([card(**hostile)])), Page(render([card(**harmless)]))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert " ".join(HOSTILE.split()) in page.text
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_hostile_title_and_facts_are_shown_not_run() -> None:
    page = Page(render(title=HOSTILE, facts={HOSTILE: HOSTILE}))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in Page(render(facts={"a": "b"})).tags]
    assert page.text.count("{{ 7 * 7 }}") == 4


@given(st.text())
def test_any_id_can_be_written_as_utf_8(name: str) -> None:
    render([card(id=name, picture=None, neighbours=[])]).encode("utf-8")


def test_a_file_name_that_is_no_utf_8_can_be_shown() -> None:
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    assert "caf?.png" in Page(render([card(id=name)])).text


def test_an_empty_page_says_so() -> None:
    assert Page(render([], [])).text.count("No examples to show.") == 2


def test_the_histogram_counts_every_finite_score() -> None:
    scores = np.append(np.random.default_rng(0).normal(size=1000), [np.nan, np.inf])
    plot = histogram(scores, tail_from=2.0)
    assert plot.n_examples == 1000
    assert sum(int(re.sub(r" .*", "", bar.text).replace(",", "")) for bar in plot.bars) == 1000
    assert {bar.tail for bar in plot.bars} == {False, True}


@pytest.mark.parametrize("scores", [[], [1.0], [3.0, 3.0], [0.0, 1e-9], [-5.0, 1e6], [1e9, 1e9 + 1]])
def test_a_histogram_of_any_scores_stays_in_its_frame(scores: list[float]) -> None:
    plot = histogram(np.array(scores), None)
    assert len(plot.bars) <= 60
    assert all(bar.x >= 0 and bar.x + bar.width <= 960 and 0 <= bar.y <= 252 for bar in plot.bars)
    assert all(0 <= tick.at <= 960 for tick in plot.x_ticks)


def test_the_same_ranking_gives_the_same_page() -> None:
    assert render() == render()


def test_the_cut_off_is_a_sentence_and_a_line_at_its_score() -> None:
    cut = CutOff(7, 3, 20, 5.0)
    page = Page(
        render_page(title="t", facts={}, suspicious=[], ordinary=[], scores=np.linspace(0.0, 10.0, 50), cut_off=cut)
    )
    assert "About 7 look bad (likely 3 to 20)." in page.text
    (line,) = [attributes for attributes in page.all("line") if attributes.get("class") == "cut"]
    assert float(line["x1"] or "nan") == pytest.approx((LEFT + WIDTH - RIGHT) / 2, abs=0.1)


def test_where_none_look_bad_there_is_no_line() -> None:
    cut, scores = CutOff(0, 0, 4, None), np.linspace(0.0, 10.0, 50)
    page = Page(render_page(title="t", facts={}, suspicious=[], ordinary=[], scores=scores, cut_off=cut))
    assert "About none look bad" in page.text
    assert not [attributes for attributes in page.all("line") if attributes.get("class") == "cut"]


def test_a_card_says_what_may_be_wrong() -> None:
    page = Page(render_page(title="t", facts={}, suspicious=[card(kind="corrupted")], ordinary=[], scores=np.ones(3)))
    assert "corrupted" in page.text
