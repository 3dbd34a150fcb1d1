from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import Result

import gradstore as library

Gradstore = Callable[..., Result]


def test_json_is_the_library_s_ranking(gradstore: Gradstore, store: Path) -> None:
    document = json.loads(gradstore("rank-outliers", store, "--top", 5, "--json").stdout)
    expected = library.open(store).rank(top=5)
    assert (document["by"], document["n_rows"]) == ("combined", 5)
    assert [row["id"] for row in document["rows"]] == expected.column("id").to_pylist()
    assert [row["score"] for row in document["rows"]] == expected.column("score").to_pylist()


def test_screen_shows_twenty_with_reasons(gradstore: Gradstore, store: Path) -> None:
    lines = gradstore("rank-outliers", store).stdout.splitlines()
    assert lines[0].split() == ["rank", "id", "label", "score", "percentile", "kind", "reason"]
    assert sum("digit-" in line for line in lines) == 20


@pytest.mark.parametrize("name", ["all.parquet", "all.csv", "all.jsonl"])
def test_a_file_holds_every_example_in_the_format_of_its_name(
    gradstore: Gradstore, store: Path, tmp_path: Path, name: str
) -> None:
    ran = gradstore("rank-outliers", store, "-o", tmp_path / name)
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert f"Wrote 130 rows to {tmp_path / name}" in ran.stderr
    assert sorted(_ids(tmp_path / name)) == [f"digit-{row:04d}" for row in range(130)]


def test_format_without_a_file_streams_to_stdout(gradstore: Gradstore, store: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(gradstore("rank-outliers", store, "--format", "csv").stdout)))
    assert [int(row["rank"]) for row in rows] == list(range(1, 131))


def test_it_says_how_many_seem_bad(gradstore: Gradstore, store: Path) -> None:
    ran = gradstore("rank-outliers", store, "--json")
    found = json.loads(ran.stdout)["cut_off"]
    assert 0 <= found["low"] <= found["n"] <= found["high"] <= 130
    assert "look bad (likely" in ran.stderr


def test_signal_orders_the_ranking(gradstore: Gradstore, store: Path) -> None:
    rows = json.loads(gradstore("rank-outliers", store, "--signal", "loss", "--json").stdout)["rows"]
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    assert all(row["score"] == pytest.approx(row["loss"]) for row in rows)


def test_an_unknown_signal_names_those_there_are(gradstore: Gradstore, store: Path) -> None:
    ran = gradstore("rank-outliers", store, "--signal", "beauty")
    assert ran.exit_code == 1
    assert "beauty" in ran.stderr
    assert "self_influence" in ran.stderr


def test_a_page_is_one_file_that_names_the_most_suspicious(gradstore: Gradstore, store: Path, tmp_path: Path) -> None:
    ran = gradstore("rank-outliers", store, "-o", tmp_path / "page.html", "--json")
    assert json.loads(ran.stdout)["written"] == str(tmp_path / "page.html")
    first = library.open(store).rank(top=1).column("id")[0].as_py()
    assert first in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(
    "words",
    [("--format", "html"), ("-o", "a.html", "--top", 5), ("--format", "csv", "--json")],
    ids=lambda words: " ".join(map(str, words)),
)
def test_options_that_contradict_are_wrong_usage(gradstore: Gradstore, store: Path, words: tuple[Any, ...]) -> None:
    assert gradstore("rank-outliers", store, *words).exit_code == 2


def test_signals_are_listed_with_their_meaning(gradstore: Gradstore) -> None:
    listed = json.loads(gradstore("rank-outliers", "--list-signals", "--json").stdout)["signals"]
    assert {"loss", "self_influence"} <= {signal["name"] for signal in listed}
    assert all(signal["meaning"] for signal in listed)
    assert "self_influence" in gradstore("rank-outliers", "--list-signals").stdout


def test_without_a_store_it_is_wrong_usage(gradstore: Gradstore) -> None:
    assert gradstore("rank-outliers").exit_code == 2


def _ids(file: Path) -> list[str]:
    if file.suffix == ".parquet":
        return [str(name) for name in pq.read_table(file).column("id").to_pylist()]
    if file.suffix == ".csv":
        return [row["id"] for row in csv.DictReader(file.read_text().splitlines())]
    return [json.loads(line)["id"] for line in file.read_text().splitlines()]
