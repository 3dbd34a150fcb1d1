from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from gradstore_pipelines import demo as demo_pipeline
from gradstore_pipelines.demo import DemoResult, SignalScore

Gradstore = Callable[..., Result]


@pytest.fixture(autouse=True)
def instant_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo itself has its own tests; here its result is given."""

    def run_demo(folder: Path, reporter: object, seed: int) -> DemoResult:
        return DemoResult(
            n_examples=1797,
            n_planted=30,
            planted_by_kind={"inverted": 20, "noise": 10},
            found_by_kind={"inverted": 19, "noise": 8},
            signals=(SignalScore("combined", 0.98765, 27), SignalScore("loss", 0.5, seed)),
            data=folder / "digits.npz",
            store=folder / "store",
            parquet=folder / "suspicious.parquet",
            csv=folder / "suspicious.csv",
            html=folder / "suspicious.html",
            seconds=61.0,
        )

    monkeypatch.setattr(demo_pipeline, "run_demo", run_demo)


def test_the_table_tells_what_every_signal_found(gradstore: Gradstore) -> None:
    ran = gradstore("demo", "--seed", 3)
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert "30 errors planted among 1,797 examples" in ran.stdout
    assert ["combined", "0.988", "27"] in lines
    assert ["loss", "0.500", "3"] in lines
    assert ["noise", "10", "8"] in lines


def test_words_say_where_the_files_are_and_how_to_go_on(gradstore: Gradstore) -> None:
    words = gradstore("demo", "--out", "here").stderr
    assert "here/suspicious.html" in words
    assert "gradstore build DATA --store my.store" in words


def test_json_is_the_whole_result(gradstore: Gradstore) -> None:
    document = json.loads(gradstore("demo", "--json").stdout)
    assert document["signals"][0] == {"name": "combined", "roc_auc": 0.98765, "found": 27}
    assert document["csv"] == "gradstore-demo/suspicious.csv"
