from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

Gradstore = Callable[..., Result]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("selftest")


@pytest.fixture(scope="module")
def asked(store: Path, work: Path) -> tuple[object, ...]:
    """The same test every time, which is made once."""
    return ("selftest", store, "--kinds", "noise,foreign", "--kinds", "mislabelled", "--sample", 40, "--work", work)


@pytest.fixture(scope="module")
def found(gradstore: Gradstore, asked: tuple[object, ...]) -> dict[str, Any]:
    ran = gradstore(*asked, "--json")
    assert ran.exit_code == 0, ran.stderr
    document: dict[str, Any] = json.loads(ran.stdout)
    return document


def test_json_holds_every_figure_and_the_recommendation(found: dict[str, Any]) -> None:
    assert {row["kind"] for row in found["rows"]} == {"noise"}
    assert {"combined", "loss", "random"} <= {row["signal"] for row in found["rows"]}
    assert (found["n_examples"], found["n_stored"], found["n_planted"]) == (40, 130, 1)
    (advice,) = found["recommended"]
    assert advice["signal"] == "combined", "of one planted example nothing is known"
    assert found["left_out"] == {
        "foreign": "it takes --foreign DATA",
        "mislabelled": "the model does not learn from labels",
    }
    assert found["sanity"]["own_proponents"]["n_asked"] == 130


@pytest.mark.usefixtures("found")
def test_tables_go_to_stdout_and_sentences_to_stderr(gradstore: Gradstore, asked: tuple[object, ...]) -> None:
    ran = gradstore(*asked)
    assert ran.exit_code == 0
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert lines[0] == ["ROC-AUC", "noise", "mean", "worst"]
    assert lines[2][0] == "combined"
    assert {"loss", "latent_distance", "raw_isolation_forest", "random"} <= {words[0] for words in lines if words}
    assert "bad examples: mean over 1 kind" in ran.stdout
    for words in ("nothing is left to do", "Keep the default", "Only 1 example was bad", "own strongest proponent"):
        assert words in ran.stderr
    assert "Not planted: mislabelled (the model does not learn from labels)." in ran.stderr


@pytest.mark.parametrize("end", ["csv", "html"])
def test_files_hold_a_row_a_kind_and_signal(
    gradstore: Gradstore, asked: tuple[object, ...], found: dict[str, Any], tmp_path: Path, end: str
) -> None:
    ran = gradstore(*asked, "-o", tmp_path / f"found.{end}")
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert f"Wrote {len(found['rows'])} rows" in ran.stderr
    if end == "csv":
        with (tmp_path / "found.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [float(row["roc_auc"]) for row in rows] == [row["roc_auc"] for row in found["rows"]]
    if end == "html":
        html = (tmp_path / "found.html").read_text(encoding="utf-8")
        assert "Self-test of small.store" in html
        assert "http://" not in html
        assert "https://" not in html


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--kinds", "upside_down"), "--kinds 'upside_down' is no kind of error. The kinds are inverted"),
        (("--kinds", "mislabelled"), "There is nothing to plant."),
        (("--share", 2), "--share is 2"),
        (("-o", "page.png"), "'png'"),
        (("--parameters", "decoder"), "not of 'decoder'"),
    ],
)
def test_what_cannot_be_tested_is_refused(
    gradstore: Gradstore, store: Path, work: Path, words: tuple[object, ...], message: str
) -> None:
    ran = gradstore("selftest", store, "--work", work, *words)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert message in ran.stderr
