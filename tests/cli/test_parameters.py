"""Several sets of parameters on the command line."""

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


@pytest.fixture(scope="module")
def both(gradstore: Gradstore, folder: Path) -> Path:
    """A store of two sets, with layer norms and draws."""
    words = ("--epochs", 1, "--n-checkpoints", 1, "--sketch-dim", 64, "--draws", 2, "--per-layer-norms")
    sets = ("--parameters", "encoder", "--parameters", "decoder")
    built = gradstore("build", folder / "digits.npz", "--store", folder / "both.store", *words, *sets)
    assert built.exit_code == 0, built.stderr
    return folder / "both.store"


def document(ran: Result) -> Any:
    assert ran.exit_code == 0, ran.stderr
    return json.loads(ran.stdout)


def test_show_lists_sets_layers_and_draws(gradstore: Gradstore, both: Path, store: Path) -> None:
    shown = document(gradstore("show", both, "--json"))
    assert (shown["parameters"], shown["draws"], shown["draw_norms"]) == (["encoder", "decoder"], 2, True)
    assert all(name.startswith("decoder.") for name in shown["layer_norms"]["decoder"])
    assert "parameters: encoder, decoder" in gradstore("show", both).stdout.splitlines()
    plain = document(gradstore("show", store, "--json"))
    assert (plain["parameters"], plain["layer_norms"], plain["draw_norms"]) == (["encoder"], None, False)


@pytest.mark.parametrize("parameters", ["encoder", "decoder"])
def test_rank_outliers_ranks_by_the_set_s_gradients(gradstore: Gradstore, both: Path, parameters: str) -> None:
    ran = document(gradstore("rank-outliers", both, "--parameters", parameters, "--top", 5, "--json"))
    expected = library.open(both, parameters=parameters).rank(top=5)
    assert ran["parameters"] == parameters
    assert [row["id"] for row in ran["rows"]] == expected.column("id").to_pylist()
    assert [row["leverage"] for row in ran["rows"]] == pytest.approx(expected.column("leverage").to_pylist())


@pytest.mark.parametrize("command", ["proponents", "opponents"])
@pytest.mark.parametrize("index", ["exact", "flat"])
def test_searches_search_the_set_s_gradients(gradstore: Gradstore, both: Path, command: str, index: str) -> None:
    assert (
        document(gradstore("index", both, "--kind", "flat", "--parameters", "decoder", "--json"))["parameters"]
        == "decoder"
    )
    words = ("--id", "digit-0003", "-k", 4, "--parameters", "decoder", "--index", index, "--json")
    rows = document(gradstore(command, both, *words))["rows"]
    expected = getattr(library.open(both, parameters="decoder"), command)("digit-0003", 4, index=index)
    assert [row["score"] for row in rows] == pytest.approx(expected.column("score").to_pylist())


def test_a_missing_index_says_which_set_it_is_for(gradstore: Gradstore, both: Path) -> None:
    words = ("--id", "digit-0003", "--index", "flat", "--parameters", "decoder", "--normalise", "cosine")
    ran = gradstore("proponents", both, *words)
    assert ran.exit_code == 1
    assert "--parameters 'decoder'" in ran.stderr


@pytest.mark.parametrize(
    "words", [("rank-outliers",), ("proponents", "--id", "digit-0003"), ("opponents", "--id", "digit-0003"), ("index",)]
)
def test_an_unknown_set_is_an_error_that_lists_those_there_are(
    gradstore: Gradstore, both: Path, words: tuple[str, ...]
) -> None:
    ran = gradstore(words[0], both, *words[1:], "--parameters", "head")
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "holds gradients of 'encoder', 'decoder', not of 'head'" in ran.stderr


def test_the_page_of_a_set_says_which_it_is(gradstore: Gradstore, both: Path, tmp_path: Path) -> None:
    ran = gradstore("rank-outliers", both, "--parameters", "decoder", "-o", tmp_path / "page.html", "--json")
    assert document(ran)["parameters"] == "decoder"
    assert "decoder" in (tmp_path / "page.html").read_text()


def test_sets_that_cannot_be_are_refused_before_training(gradstore: Gradstore, folder: Path, tmp_path: Path) -> None:
    for sets, word in ((("head.*",), "names none of"), (("all", "*"), "the same"), (("all", "all"), "more than once")):
        options = [option for name in sets for option in ("--parameters", name)]
        ran = gradstore("build", folder / "digits.npz", "--store", tmp_path / "s", *options)
        assert ran.exit_code == 1
        assert word in ran.stderr
        assert not (tmp_path / "s").exists()


def test_a_negative_seed_is_refused(gradstore: Gradstore, folder: Path, tmp_path: Path) -> None:
    ran = gradstore("build", folder / "digits.npz", "--store", tmp_path / "s", "--seed", -1)
    assert ran.exit_code == 1
    assert ran.stderr.startswith("Error: --seed is -1; it must be a number from 0 to")


def test_neighbours_of_examples_whose_class_the_store_does_not_have(
    gradstore: Gradstore, store: Path, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "queries" / "never seen").mkdir(parents=True)
    Image.open(folder / "digit.png").save(tmp_path / "queries" / "never seen" / "digit.png")
    rows = document(gradstore("neighbours", store, "--query", tmp_path / "queries", "-k", 1, "--json"))["rows"]
    assert [row["id"] for row in rows] == ["digit-0007"]


def test_neighbours_of_a_classifier_s_queries_need_no_label(gradstore: Gradstore, folder: Path, tmp_path: Path) -> None:
    words = ("--model", "classifier", "--epochs", 1, "--n-checkpoints", 1, "--sketch-dim", 64)
    assert gradstore("build", folder / "digits.npz", "--store", tmp_path / "s", *words).exit_code == 0
    rows = document(gradstore("neighbours", tmp_path / "s", "--query", folder / "digit.png", "-k", 1, "--json"))["rows"]
    assert [row["id"] for row in rows] == ["digit-0007"]
    np.testing.assert_allclose([row["distance"] for row in rows], 0, atol=1e-3)
