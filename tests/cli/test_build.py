from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Gradstore = Callable[..., Result]
Words = tuple[object, ...]


def test_json_says_what_was_made_and_nothing_else(gradstore: Gradstore, small_build: Words, store: Path) -> None:
    ran = gradstore(*small_build, "--store", store, "--json")
    assert ran.exit_code == 0
    assert json.loads(ran.stdout) == {"store": str(store), "examples": 130, "checkpoints": 2, "sketched_shards": 0}


def test_a_finished_build_says_so_and_names_the_next_commands(
    gradstore: Gradstore, small_build: Words, store: Path
) -> None:
    ran = gradstore(*small_build, "--store", store)
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert "was finished already: 130 examples at 2 checkpoints. Nothing to do." in ran.stderr
    assert f"gradstore rank-outliers {store}" in ran.stderr


def test_other_settings_are_refused_showing_both(gradstore: Gradstore, small_build: Words, store: Path) -> None:
    ran = gradstore(*small_build, "--store", store, "--seed", 7)
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "seed: store has 0; this run asks for 7" in ran.stderr


def test_a_missing_shard_is_made_again_by_the_same_command(
    gradstore: Gradstore, small_build: Words, store: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.store"
    shutil.copytree(store, copy)
    next((copy / "commits").glob("*.json")).unlink()
    ran = gradstore(*small_build, "--store", copy, "--json")
    assert json.loads(ran.stdout)["sketched_shards"] == 1


@pytest.mark.usefixtures("short_trials")
def test_dry_run_counts_and_writes_nothing(gradstore: Gradstore, small_build: Words, tmp_path: Path) -> None:
    store = tmp_path / "new.store"
    ran = gradstore(*small_build, "--store", store, "--dry-run", "--json")
    estimate = json.loads(ran.stdout)
    assert (estimate["n_examples"], estimate["n_checkpoints"]) == (130, 2)
    assert not store.exists()


@pytest.mark.usefixtures("short_trials")
def test_dry_run_prints_numbers_for_people(gradstore: Gradstore, small_build: Words, tmp_path: Path) -> None:
    ran = gradstore(*small_build, "--store", tmp_path / "new.store", "--dry-run")
    assert "Examples            130\n" in ran.stdout
    assert "Sketching           about" in ran.stdout


def test_a_setting_out_of_range_names_its_option(gradstore: Gradstore, tmp_path: Path) -> None:
    ran = gradstore("build", "digits.npz", "--store", tmp_path / "s", "--epochs", 0)
    assert (ran.exit_code, ran.stderr) == (1, "Error: --epochs is 0; it must be at least 1.\n")
