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
def found(gradstore: Gradstore, store: Path) -> dict[str, Any]:
    ran = gradstore("fidelity", store, "--sample", 40, "--json")
    assert ran.exit_code == 0, ran.stderr
    document: dict[str, Any] = json.loads(ran.stdout)
    return document


def test_json_holds_every_length_and_the_recommendation(found: dict[str, Any]) -> None:
    assert [row["sketch_dim"] for row in found["rows"]] == [16, 32, 64, 128, 256]
    assert (found["sampled_examples"], found["examples"], found["sketch_dim"]) == (40, 130, 64)
    good = [row["sketch_dim"] for row in found["rows"] if row["recall_10"] >= 0.9]
    assert found["recommended_sketch_dim"] == (good[0] if good else None)
    assert all(row["recall_100"] is None for row in found["rows"])
    assert {row["sketch_dtype"]: row["recall_10"] for row in found["dtypes"]}["float32"] == 1


def test_the_table_goes_to_stdout_and_the_words_to_stderr(gradstore: Gradstore, store: Path) -> None:
    ran = gradstore("fidelity", store, "--sample", 40, "--sketch-dim", 64, "--sketch-dim", 512, "--recall", 0.01)
    assert ran.exit_code == 0
    heading, _, own, longer, *dtypes = ran.stdout.splitlines()
    assert "recall@10" in heading
    assert own.split()[0] == "64"
    assert own.endswith("this store, recommended")
    assert longer.split()[0] == "512"
    assert [line.split()[0] for line in dtypes[-3:]] == ["float16", "float32", "int8"]
    assert dtypes[-3].endswith("this store")
    assert "64 is the shortest length measured that reaches a recall@10 of 0.01." in ran.stderr
    assert "a store keeps the exact norm of every gradient" in ran.stderr
    assert "Recall@100 needs a --sample of 201 or more" in ran.stderr


def test_when_no_length_is_good_enough_the_best_is_named(gradstore: Gradstore, store: Path) -> None:
    ran = gradstore("fidelity", store, "--sample", 40, "--sketch-dim", 2, "--sketch-dim", 32, "--recall", 1)
    assert "No length measured reaches a recall@10 of 1; the best is 32 with 0." in ran.stderr
    assert "recommended" not in ran.stdout


def test_a_sample_too_small_for_recall_still_correlates(gradstore: Gradstore, store: Path) -> None:
    ran = gradstore("fidelity", store, "--sample", 6, "--sketch-dim", 64)
    assert ran.exit_code == 0
    assert "–" in ran.stdout
    assert "No length can be recommended" in ran.stderr


def test_the_table_goes_into_a_file(gradstore: Gradstore, store: Path, tmp_path: Path) -> None:
    ran = gradstore("fidelity", store, "--sample", 30, "--sketch-dim", 8, "-o", tmp_path / "f.csv")
    assert (ran.exit_code, ran.stdout) == (0, "")
    with (tmp_path / "f.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["sketch_dim"] == "8"
    assert 0 < float(row["pearson"]) < 1
    assert row["recall_100"] == ""


@pytest.mark.parametrize(("words", "status"), [(("--sample", 2), 1), (("--recall", 2), 1), (("-o", "page.html"), 1)])
def test_what_cannot_be_measured_is_refused(
    gradstore: Gradstore, store: Path, words: tuple[object, ...], status: int
) -> None:
    ran = gradstore("fidelity", store, *words)
    assert (ran.exit_code, ran.stdout) == (status, "")
