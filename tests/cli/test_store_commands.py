from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Gradstore = Callable[..., Result]


@pytest.fixture
def unfinished(store: Path, tmp_path: Path) -> Path:
    """A copy that lacks one shard."""
    copy = tmp_path / "unfinished.store"
    shutil.copytree(store, copy)
    next((copy / "commits").glob("*.json")).unlink()
    return copy


def test_status_of_a_finished_store(gradstore: Gradstore, store: Path) -> None:
    ran = gradstore("status", store)
    assert "Finished     yes" in ran.stdout
    assert ran.stderr == ""


def test_status_of_an_unfinished_store_says_how_to_go_on(gradstore: Gradstore, unfinished: Path) -> None:
    ran = gradstore("status", unfinished)
    assert ran.exit_code == 0
    assert "Finished     no" in ran.stdout
    assert "run the same build command" in ran.stderr


def test_status_as_json_counts_shards(gradstore: Gradstore, unfinished: Path) -> None:
    status = json.loads(gradstore("status", unfinished, "--json").stdout)
    assert (status["complete"], status["n_units"] - status["n_committed"]) == (False, 1)


def test_questions_to_an_unfinished_store_are_errors(gradstore: Gradstore, unfinished: Path) -> None:
    for words in (("rank-outliers", unfinished), ("index", unfinished)):
        ran = gradstore(*words)
        assert (ran.exit_code, ran.stdout) == (1, "")
        assert ran.stderr.startswith("Error: ")


def test_show_tells_how_the_store_was_made(gradstore: Gradstore, store: Path, folder: Path) -> None:
    shown = json.loads(gradstore("show", store, "--json").stdout)
    assert (shown["examples"], shown["sketch_dim"], len(shown["checkpoints"])) == (130, 64, 2)
    lines = gradstore("show", store).stdout.splitlines()
    assert "examples: 130" in lines
    assert "  name: vae" in lines


def test_verify_of_a_sound_store(gradstore: Gradstore, store: Path) -> None:
    ran = gradstore("verify", store)
    assert ran.exit_code == 0
    assert ran.stdout.endswith("committed: all as they were committed.\n")
    assert json.loads(gradstore("verify", store, "--json").stdout)["ok"] is True


def test_verify_names_a_file_with_a_flipped_bit(gradstore: Gradstore, store: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.store"
    shutil.copytree(store, damaged)
    file = next(file for file in sorted((damaged / "sketches").rglob("*")) if file.is_file() and file.suffix != ".json")
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)
    ran = gradstore("verify", damaged)
    assert ran.exit_code == 1
    assert file.relative_to(damaged).as_posix() in ran.stdout
    assert json.loads(gradstore("verify", damaged, "--json").stdout)["damaged"] != []
