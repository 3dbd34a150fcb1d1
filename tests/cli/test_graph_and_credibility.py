from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import Result

import gradstore as library

Gradstore = Callable[..., Result]


def document(ran: Result) -> dict[str, Any]:
    assert ran.exit_code == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.fixture
def own(store: Path, tmp_path: Path) -> Path:
    """A copy that may be written to."""
    return Path(shutil.copytree(store, tmp_path / "own.store"))


@pytest.mark.parametrize("space", ["gradient", "latent"])
def test_a_graph_is_built_once_and_read_by_the_library(gradstore: Gradstore, own: Path, space: str) -> None:
    words = ("graph", own, "--space", space, "--k", 4, "--json")
    first, again = document(gradstore(*words)), document(gradstore(*words))
    assert (first["recall"], first["method"], again["shards"]) == (1.0, "exact", 0)
    indices, distances = library.open(own).graph(space).rows(0, 130)  # type: ignore[arg-type]
    assert (indices.shape, bool((np.diff(distances) >= 0).all())) == ((130, 4), True)


def test_latent_neighbours_are_those_of_the_graph(gradstore: Gradstore, own: Path) -> None:
    document(gradstore("graph", own, "--space", "latent", "--k", 5, "--checkpoint", -1, "--json"))
    rows = document(gradstore("neighbours", own, "--id", "digit-0003", "-k", 5, "--json"))["rows"]
    indices, distances = library.open(own).graph("latent").rows_at([3])
    assert [row["id"] for row in rows] == [f"digit-{row:04d}" for row in indices[0]]
    assert [row["distance"] for row in rows] == pytest.approx(distances[0].tolist())


def test_a_dry_run_of_a_graph_writes_nothing(gradstore: Gradstore, own: Path) -> None:
    found = document(gradstore("graph", own, "--dry-run", "--method", "cells", "--json"))
    assert (found["method"], found["bytes"]) == ("cells", 130 * 10 * 12)
    assert not (own / "graph").exists()


def test_a_graph_of_other_settings_is_an_error_that_names_them(gradstore: Gradstore, own: Path) -> None:
    document(gradstore("graph", own, "--k", 4, "--json"))
    ran = gradstore("graph", own, "--k", 5)
    assert ran.exit_code == 1
    assert "k=4 instead of 5" in ran.stderr
    assert "--overwrite" in ran.stderr


def test_neighbours_of_one_class_or_a_list_only(gradstore: Gradstore, store: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("digit-0013\ndigit-0004\n\ndigit-0023\n")
    words = ("neighbours", store, "--id", "digit-0007", "--metric", "cosine", "--json")
    of_label = document(gradstore(*words, "-k", 5, "--only-label", "3"))["rows"]
    assert {row["label"] for row in of_label} == {"3"}
    both = document(gradstore(*words, "-k", 2, "--only-label", "3", "--only-ids", tmp_path / "ids.txt"))["rows"]
    assert {row["id"] for row in both} == {"digit-0013", "digit-0023"}
    ran = gradstore(*words, "--only-ids", tmp_path / "none.txt")
    assert (ran.exit_code, "one id a line" in ran.stderr) == (1, True)


def test_distances_over_several_checkpoints_are_their_mean(gradstore: Gradstore, store: Path) -> None:
    words = ("neighbours", store, "--id", "digit-0007", "--metric", "cosine", "-k", 129, "--json")
    first, last, both = (
        {row["id"]: row["distance"] for row in document(gradstore(*words, *checkpoints))["rows"]}
        for checkpoints in (("--checkpoint", 0), ("--checkpoint", -1), ("--checkpoint", 0, "--checkpoint", 1))
    )
    assert both == pytest.approx({name: (first[name] + last[name]) / 2 for name in both}, abs=1e-6)


def test_credibility_is_the_library_s(gradstore: Gradstore, store: Path, folder: Path) -> None:
    words = ("credibility", store, "-k", 9, "--p-values", "--json")
    (row,) = document(gradstore(*words, "--id", "digit-0007"))["rows"]
    expected = library.open(store).credibility("digit-0007", 9, p_values=True).to_pylist()
    assert row == expected[0]
    assert row["label"] == "7"
    assert row["credibility"] == max(row[f"p({label})"] for label in range(10))
    (new,) = document(gradstore(*words, "--query", folder / "digit.png"))["rows"]
    assert (new["query"], new["label"]) == ("digit.png", None)


def test_calibration_by_ids_or_share_but_not_both(gradstore: Gradstore, store: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("\n".join(f"digit-{row:04d}" for row in range(20)))
    words = ("credibility", store, "--id", "digit-0050", "-k", 9, "--json")
    (row,) = document(gradstore(*words, "--calibration-ids", tmp_path / "ids.txt"))["rows"]
    assert row["credibility"] * 21 == pytest.approx(round(row["credibility"] * 21))
    assert gradstore(*words, "--calibration-ids", tmp_path / "ids.txt", "--calibration", 0.5).exit_code == 2


def test_credibility_without_labels_is_an_error(gradstore: Gradstore, folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "plain.npy", np.load(folder / "digits.npz")["images"][:70])
    small = ("--epochs", 1, "--n-checkpoints", 1, "--sketch-dim", 64, "--device", "cpu")
    assert gradstore("build", tmp_path / "plain.npy", "--store", tmp_path / "s", *small).exit_code == 0
    ran = gradstore("credibility", tmp_path / "s", "--id", "0")
    assert (ran.exit_code, "has no labels" in ran.stderr) == (1, True)
