from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

import gradstore as library

Gradstore = Callable[..., Result]
COMMANDS = ("proponents", "opponents", "neighbours")


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_the_library_s_answer(gradstore: Gradstore, store: Path, command: str) -> None:
    rows = _rows(gradstore(command, store, "--id", "digit-0003", "--id", "digit-0009", "-k", 4, "--json"))
    expected = getattr(library.open(store), command)(["digit-0003", "digit-0009"], 4)
    assert [row["id"] for row in rows] == expected.column("id").to_pylist()
    assert [row["query"] for row in rows] == ["digit-0003"] * 4 + ["digit-0009"] * 4
    assert [row["score"] for row in rows] == pytest.approx(expected.column("score").to_pylist())


@pytest.mark.parametrize("command", COMMANDS)
def test_a_query_from_a_file_is_named_and_finds_itself_in_the_store(
    gradstore: Gradstore, store: Path, folder: Path, command: str
) -> None:
    ran = gradstore(command, store, "--query", folder / "digit.png", "-k", 130, "--json")
    rows = _rows(ran)
    assert {row["query"] for row in rows} == {"digit.png"}
    assert {row["id"] for row in rows} == {f"digit-{row:04d}" for row in range(130)}


def test_a_stored_example_is_the_nearest_to_its_own_image(gradstore: Gradstore, store: Path, folder: Path) -> None:
    (nearest,) = _rows(gradstore("neighbours", store, "--query", folder / "digit.png", "-k", 1, "--json"))
    assert nearest["id"] == "digit-0007"


@pytest.mark.parametrize("command", COMMANDS)
def test_an_example_finds_itself_only_when_allowed(gradstore: Gradstore, store: Path, command: str) -> None:
    words = (command, store, "--id", "digit-0003", "--json")
    without, with_self = _rows(gradstore(*words, "-k", 129)), _rows(gradstore(*words, "-k", 130, "--include-self"))
    assert "digit-0003" not in {row["id"] for row in without}
    assert "digit-0003" in {row["id"] for row in with_self}


def test_opponents_are_the_bottom_of_the_list_of_proponents(gradstore: Gradstore, store: Path) -> None:
    words = (store, "--id", "digit-0003", "-k", 129, "--json")
    up, down = _rows(gradstore("proponents", *words)), _rows(gradstore("opponents", *words))
    assert [row["score"] for row in up] == pytest.approx([row["score"] for row in reversed(down)])


@pytest.mark.parametrize("normalise", ["none", "cosine", "relatif"])
def test_the_flat_index_answers_as_the_exact_search_does(gradstore: Gradstore, store: Path, normalise: str) -> None:
    assert gradstore("index", store, "--kind", "flat", "--normalise", normalise).exit_code == 0
    words = ("proponents", store, "--id", "digit-0003", "-k", 20, "--normalise", normalise, "--json")
    flat, exact = _rows(gradstore(*words, "--index", "flat")), _rows(gradstore(*words))
    largest = max(abs(row["score"]) for row in exact)  # float16 rows: a score errs by 2^-11 of the largest
    assert [row["score"] for row in flat] == pytest.approx([row["score"] for row in exact], abs=largest / 500)


@pytest.mark.parametrize(
    ("command", "word"), [("proponents", "lowered"), ("opponents", "raised"), ("neighbours", "nearer")]
)
def test_the_meaning_of_a_score_goes_to_stderr(gradstore: Gradstore, store: Path, command: str, word: str) -> None:
    ran = gradstore(command, store, "--id", "digit-0003")
    assert word in ran.stderr
    assert word not in ran.stdout
    assert sum("digit-0003" in line for line in ran.stdout.splitlines()) == 10


def test_answers_go_into_a_file(gradstore: Gradstore, store: Path, tmp_path: Path) -> None:
    ran = gradstore("opponents", store, "--id", "digit-0003", "-k", 3, "-o", tmp_path / "a.jsonl")
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    "words", [(), ("--id", "a", "--query", "b.npy"), ("--id", "a", "--labels", "b.npy"), ("--id", "a", "-k", 0)]
)
def test_a_question_without_one_clear_query_is_wrong_usage(
    gradstore: Gradstore, store: Path, words: tuple[Any, ...]
) -> None:
    assert gradstore("proponents", store, *words).exit_code == 2


def test_an_unknown_id_is_an_error_with_a_guess(gradstore: Gradstore, store: Path) -> None:
    ran = gradstore("proponents", store, "--id", "digit-00033")
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "Close: 'digit-0033'" in ran.stderr


def test_more_than_the_store_holds_is_an_error(gradstore: Gradstore, store: Path) -> None:
    ran = gradstore("proponents", store, "--id", "digit-0003", "-k", 1000)
    assert ran.exit_code == 1
    assert "1000" in ran.stderr


def test_a_query_of_another_shape_is_an_error(gradstore: Gradstore, store: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((2, 9, 9), np.uint8))
    ran = gradstore("neighbours", store, "--query", tmp_path / "wide.npy")
    assert ran.exit_code == 1
    assert "(1, 9, 9)" in ran.stderr


def test_an_image_that_cannot_be_decoded_is_an_error(gradstore: Gradstore, store: Path, tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "torn.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "torn.png").read_bytes()[:40])
    ran = gradstore("neighbours", store, "--query", tmp_path / "torn.png")
    assert ran.exit_code == 1
    assert "torn.png" in ran.stderr


def _rows(ran: Result) -> list[dict[str, Any]]:
    assert ran.exit_code == 0, ran.stderr
    rows: list[dict[str, Any]] = json.loads(ran.stdout)["rows"]
    return rows
