from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradstore.report.selftest import HEIGHT, LEFT, RIGHT, WIDTH, KindOnPage, Planted, SelftestPage, render_selftest
from tests.gradstore.report.test_page import HOSTILE, Page

CURVE = [(0.0, 0.0), (0.25, 0.5), (1.0, 1.0)]


def page(**changes: Any) -> str:
    planted = Planted(id="7", rank=3, example=np.zeros((1, 4, 4), np.uint8), label="cat", was="dog")
    kind = KindOnPage(
        name="noise",
        meaning="Every value is drawn at random.",
        note="Best found by loss.",
        n_planted=2,
        n_examples=100,
        curves={"combined": CURVE, "loss": CURVE},
        found=[planted],
        missed=[planted],
    )
    values: dict[str, Any] = {
        "title": "Self-test of a.store",
        "advice": ["Keep the default."],
        "facts": {"Sample": "100 of 200 examples"},
        "notes": ["Only few were bad."],
        "signals": {"combined": [0.934], "loss": [0.25], "forgetting": [None]},
        "baselines": ["loss"],
        "compared": {"bad examples": {"combined": {"D": "0.9 (0.8–1.0)"}}},
        "kinds": [kind],
    }
    return render_selftest(SelftestPage(**{**values, **changes}))


def test_a_page_says_all_it_knows() -> None:
    text = Page(page()).text
    for words in ("Keep the default.", "100 of 200", "Only few", "noise", ".93 .93 .93", ".25", "– – –", "(0.8–1.0)"):
        assert words in text
    assert text.count("cat , was dog") == 2


def test_curves_lie_within_their_frame_and_what_is_first_is_wide() -> None:
    lines = [line for line in Page(page()).all("polyline") if "curve" in str(line["class"])]
    points = np.array([[float(n) for n in pair.split(",")] for line in lines for pair in str(line["points"]).split()])
    assert ((points >= [LEFT, 0]) & (points <= [WIDTH - RIGHT, HEIGHT])).all()
    first = next(line for line in lines if line["class"] == "curve first")
    _, quarter, _ = str(first["points"]).split()
    assert float(quarter.split(",")[0]) == pytest.approx((LEFT + WIDTH - RIGHT) / 2, abs=0.1)


def test_a_page_loads_nothing_and_runs_nothing_whatever_an_id_says() -> None:
    planted = Planted(id=HOSTILE, rank=1, example="text", label=HOSTILE, was=HOSTILE)
    kind = KindOnPage(
        name="noise", meaning="", note="", n_planted=1, n_examples=9, curves={"combined": CURVE}, found=[planted]
    )
    html = page(title=HOSTILE, advice=[HOSTILE], facts={HOSTILE: HOSTILE}, notes=[HOSTILE], kinds=[kind])
    found = Page(html)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in found.tags}
    assert all(str(image["src"]).startswith("data:") for image in found.all("img"))
    assert "default-src 'none'" in html
