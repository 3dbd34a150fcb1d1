"""forget, append and diff, said aloud."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gradstore_cli.main import app

Gradstore = Callable[..., Result]


@pytest.fixture
def mine(store: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(store, tmp_path / "mine.store"))


def test_forgotten_examples_are_ranked_no_more_until_it_is_undone(gradstore: Gradstore, mine: Path) -> None:
    worst = json.loads(gradstore("rank-outliers", mine, "--top", 2, "--json").stdout)["rows"][0]["id"]
    ran = gradstore("forget", mine, "--id", worst, "--json")
    assert json.loads(ran.stdout) == {"store": str(mine), "changed": 1, "forgotten": 1, "examples": 130}
    assert "1 example forgotten now; forgotten in all: 1 of 130 examples." in ran.stderr
    assert worst not in gradstore("rank-outliers", mine, "--format", "csv").stdout
    assert "1 example taken notice of again" in gradstore("forget", mine, "--undo").stderr
    assert worst in gradstore("rank-outliers", mine, "--format", "csv").stdout


def test_ids_to_forget_come_from_a_ranking_or_from_stdin(gradstore: Gradstore, mine: Path, tmp_path: Path) -> None:
    gradstore("rank-outliers", mine, "--top", 5, "-o", tmp_path / "worst.csv")
    assert "5 examples forgotten now" in gradstore("forget", mine, "--ids", tmp_path / "worst.csv").stderr
    ran = CliRunner().invoke(app, ["forget", str(mine), "--ids", "-"], input="digit-0001\ndigit-0002\n")
    assert ran.exit_code == 0
    assert "130 examples" in ran.stderr


def test_forgetting_nobody_is_wrong_usage(gradstore: Gradstore, mine: Path) -> None:
    assert gradstore("forget", mine).exit_code == 2
    ran = gradstore("forget", mine, "--id", "digit-9999")
    assert (ran.exit_code, ran.stderr.startswith("Error: The store has no example 'digit-9999'")) == (1, True)


def test_an_append_says_what_it_did_and_then_that_it_is_done(gradstore: Gradstore, mine: Path, folder: Path) -> None:
    ran = gradstore("append", mine, folder / "more.npz", "--device", "cpu", "--json")
    assert ran.exit_code == 0, ran.stderr
    assert json.loads(ran.stdout)["n_examples"] == 200
    assert "200 examples at 2 checkpoints, 70 new examples among them" in ran.stderr
    again = gradstore("append", mine, folder / "more.npz", "--device", "cpu")
    assert "holds that already: 200 examples at 2 checkpoints. Nothing to do." in again.stderr


def test_diff_tells_what_was_added_and_who_moved(
    gradstore: Gradstore, store: Path, mine: Path, folder: Path, tmp_path: Path
) -> None:
    gradstore("append", mine, folder / "more.npz", "--device", "cpu")
    ran = gradstore("diff", store, mine, "--top", 3)
    assert "Examples: 130 in both, 70 added." in ran.stderr
    assert "n_examples: 130 in A, 200 in B" in ran.stderr
    assert "Ranks correlate by " in ran.stderr
    assert len(ran.stdout.splitlines()) == 5
    found = json.loads(gradstore("diff", store, mine, "-o", tmp_path / "d.parquet", "--json").stdout)
    assert (found["examples"]["added"], found["n_rows"]) == (70, 200)
