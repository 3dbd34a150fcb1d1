"""A store in a bucket: built, killed and resumed, read and asked like one in a folder, and with the same rows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from typer.testing import CliRunner

import gradstore
from gradstore.errors import StoreMismatchError
from gradstore.store import Store, verify
from gradstore.store.place import local_folder, place_of
from gradstore_cli.main import app
from gradstore_pipelines.build_store import build
from gradstore_pipelines.settings import BuildSettings
from tests.buckets import s3

TOY = f"{Path(__file__).parent / 'toy_task.py'}:Toy"
N = 300


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3(tmp_path_factory.mktemp("cache")) as url:
        yield url


@pytest.fixture(scope="module")
def data(bucket: str) -> str:
    """Digits, in the bucket as well."""
    place = place_of(bucket)
    with place.replacing("digits.npy") as temporary, temporary.open("wb") as file:
        np.save(file, (load_digits().images[:N] * 15).astype(np.uint8))
    return f"{bucket}/digits.npy"


@pytest.fixture(scope="module")
def built(data: str, bucket: str) -> str:
    build(settings(data, f"{bucket}/built"))
    return f"{bucket}/built"


def settings(data: str, store: str | Path, **changes: Any) -> BuildSettings:
    values: dict[str, Any] = {"model": TOY, "epochs": 3, "n_checkpoints": 2, "sketch_dim": 32} | changes
    return BuildSettings(source=data, store=store, **values)


def content(url: str) -> dict[str, bytes]:
    """Every object of a store."""
    place = place_of(url)
    return {entry.name: place.read(entry.name) for entry in place.entries()}


def test_its_rows_are_those_of_a_store_in_a_folder(data: str, built: str, tmp_path: Path) -> None:
    build(settings(data, tmp_path / "store"))
    here, there = Store.open(tmp_path / "store"), Store.open(built)
    for checkpoint in range(2):
        np.testing.assert_array_equal(here.unit_sketches(checkpoint, 0, N), there.unit_sketches(checkpoint, 0, N))
        np.testing.assert_array_equal(here.norms(checkpoint), there.norms(checkpoint))
    assert [here.manifest.fingerprint(t) for t in range(2)] == [there.manifest.fingerprint(t) for t in range(2)]


def test_it_verifies_and_a_second_build_finds_it_finished(data: str, built: str) -> None:
    assert verify(Store.open(built)).ok
    before = content(built)
    assert build(settings(data, built)).sketched_shards == 0
    assert content(built) == before
    with pytest.raises(StoreMismatchError, match=r"sketch_dim: store has 32; this run asks for 64"):
        build(settings(data, built, sketch_dim=64))


def test_a_machine_that_has_nothing_of_it_asks_it_all_the_same(
    data: str, built: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = gradstore.open(built)
    ranked, proponents = opened.rank(top=5), opened.proponents(["3", "141"], 4)
    monkeypatch.setenv("GRADSTORE_CACHE", str(tmp_path))
    fresh = gradstore.open(built)
    assert fresh.rank(top=5) == ranked
    assert fresh.proponents(["3", "141"], 4) == proponents
    rows = (load_digits().images[:2] * 15).astype(np.uint8)
    assert fresh.proponents(rows[:, None], 3).num_rows == 6  # weights are fetched for that
    assert (local_folder(built) / "signals.parquet").is_file()


def test_an_index_and_latent_neighbours_work(built: str) -> None:
    opened = gradstore.open(built)
    opened.build_index("none", "flat")
    found = opened.search(["7"], 5)
    np.testing.assert_array_equal(opened.search(["7"], 5, index="exact").indices, found.indices)
    assert opened.neighbours(["7"], 3).num_rows == 3


def test_given_checkpoints_go_with_the_store(data: str, built: str, bucket: str, tmp_path: Path) -> None:
    for entry in place_of(f"{built}/checkpoints").entries():
        (tmp_path / entry.name).write_bytes(place_of(f"{built}/checkpoints").read(entry.name))
    build(settings(data, f"{bucket}/given", checkpoints=(str(tmp_path / "*.safetensors"),)))
    shutil.rmtree(tmp_path)
    shutil.rmtree(local_folder(f"{bucket}/given"))
    rows = (load_digits().images[:1, None] * 15).astype(np.uint8)
    assert gradstore.open(f"{bucket}/given").proponents(rows, 2).num_rows == 2


def test_resuming_after_a_kill_on_another_machine_gives_the_same_bytes(
    data: str, built: str, bucket: str, tmp_path: Path
) -> None:
    """One machine dies; another finishes. Many kills, with workers and without: tests/faults/bucket.py."""
    store = f"{bucket}/killed"
    run_killed(data, store, tmp_path / "cache", n_committed=4)
    assert 4 <= Store.open(store).n_committed < 10
    build(settings(data, store))
    assert of_the_store(content(store)) == of_the_store(content(built))


def of_the_store(found: dict[str, bytes]) -> dict[str, bytes]:
    """Without what is about builds and not of the store."""
    return {name: data for name, data in found.items() if not name.startswith("build/")}


def run_killed(data: str, store: str, cache: Path, n_committed: int) -> None:
    """Start the real command, with a cache of its own, and kill it when so many shards are committed."""
    command = [sys.executable, "-m", "gradstore_cli", "build", data, "--store", store, "--model", TOY]
    command += ["--epochs", "3", "--n-checkpoints", "2", "--sketch-dim", "32"]
    environment = {**os.environ, "GRADSTORE_CACHE": str(cache)}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    place = place_of(store)
    while len(list(place.names("commits"))) < n_committed:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()


@pytest.mark.parametrize(
    "words",
    [
        ["status", "STORE"],
        ["show", "STORE"],
        ["verify", "STORE"],
        ["rank-outliers", "STORE", "--top", "3"],
        ["proponents", "STORE", "--id", "3"],
        ["fidelity", "STORE", "--sample", "24", "--checkpoints", "1"],
    ],
)
def test_commands_take_a_url(built: str, words: list[str]) -> None:
    result = CliRunner().invoke(app, [built if word == "STORE" else word for word in words])
    assert result.exit_code == 0, result.output
