"""A build: the same bytes however it is cut and interrupted, and no surprise when it is asked again."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import gradstore
from gradstore.errors import (
    CheckpointError,
    LossShapeError,
    MissingLabelsError,
    MixedExamplesError,
    NonFiniteDataError,
    ParametersError,
    QueryError,
    SourceError,
    SourceNotFoundError,
    StoreError,
    StoreMismatchError,
    TaskError,
    TaskNotFoundError,
    TrainingModeError,
)
from gradstore.store import Store, verify
from gradstore_pipelines.build_store import build
from gradstore_pipelines.settings import BuildSettings, SettingsError

HERE = Path(__file__).parent
TOY = f"{HERE / 'toy_task.py'}:Toy"
N = 300


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    digits = load_digits()
    np.savez(path, images=(digits.images[:N] * 15).astype(np.uint8), labels=digits.target[:N])
    return path


@pytest.fixture(scope="session")
def built(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted build in one process."""
    store = tmp_path_factory.mktemp("built") / "store"
    build(settings(data, store))
    return store


def settings(data: Path, store: Path, **changes: Any) -> BuildSettings:
    values: dict[str, Any] = {"model": TOY, "epochs": 3, "n_checkpoints": 2, "sketch_dim": 32} | changes
    return BuildSettings(source=data, store=store, **values)


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {str(f.relative_to(store)): f.read_bytes() for f in sorted(store.rglob("*")) if f.is_file()}


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batch_size_changes_no_byte(data: Path, built: Path, tmp_path: Path, batch_size: int) -> None:
    build(settings(data, tmp_path / "store", batch_size=batch_size))
    assert content(tmp_path / "store") == content(built)


def test_two_workers_write_the_same_bytes_as_none(data: Path, built: Path, tmp_path: Path) -> None:
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):  # taken already: just as well
            held.enter_context(socket.create_server(("", 8787)))  # another cluster's dashboard is no obstacle
        build(settings(data, tmp_path / "store", workers=2))
    assert content(tmp_path / "store") == content(built)


def test_a_finished_build_is_left_as_it_is(data: Path, built: Path) -> None:
    before = {f: f.stat().st_mtime_ns for f in (built / "sketches").iterdir()}
    assert build(settings(data, built)).sketched_shards == 0
    assert {f: f.stat().st_mtime_ns for f in (built / "sketches").iterdir()} == before


def test_a_missing_shard_is_made_again_to_the_same_bytes(data: Path, built: Path, tmp_path: Path) -> None:
    build(settings(data, tmp_path / "store"))
    Store.open(tmp_path / "store").discard(1, 2)
    assert build(settings(data, tmp_path / "store")).sketched_shards == 1
    assert content(tmp_path / "store") == content(built)


def test_repairing_a_damaged_shard_forgets_what_was_computed_from_it(data: Path, tmp_path: Path) -> None:
    build(settings(data, tmp_path / "store"))
    clean = gradstore.open(tmp_path / "store").rank(by="leverage")
    (tmp_path / "store" / "signals.parquet").unlink()
    damaged = tmp_path / "store" / "sketches" / "c.0.1.0"
    damaged.write_bytes(bytes(damaged.stat().st_size))
    assert gradstore.open(tmp_path / "store").rank(by="leverage") != clean
    (tmp_path / "store" / "commits" / "0-1.json").unlink()  # what `verify` advises
    build(settings(data, tmp_path / "store"))
    assert gradstore.open(tmp_path / "store").rank(by="leverage") == clean


def run_killed(data: Path, store: Path, seconds: float) -> bool:
    """Start the real command and kill it with SIGKILL after a while; False when it was done before."""
    command = [sys.executable, "-m", "gradstore_cli", "build", str(data), "--store", str(store), "--model", TOY]
    command += ["--epochs", "3", "--n-checkpoints", "2", "--sketch-dim", "32"]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    assert process.returncode == 0
    return False


def test_resuming_after_kills_at_random_moments_gives_the_same_bytes(data: Path, built: Path, tmp_path: Path) -> None:
    store, moments = tmp_path / "store", random.Random(0)
    start = time.monotonic()
    assert not run_killed(data, tmp_path / "timing", 600)
    whole = time.monotonic() - start
    killed = sum(run_killed(data, store, whole * moments.uniform(0.4, 0.95)) for _ in range(4))
    assert killed > 0
    build(settings(data, store))
    assert content(store) == content(built) == content(tmp_path / "timing")


def test_other_settings_are_refused_showing_both(data: Path, built: Path) -> None:
    before = content(built)
    with pytest.raises(StoreMismatchError, match=r"sketch_dim: store has 32; this run asks for 64"):
        build(settings(data, built, sketch_dim=64))
    with pytest.raises(StoreMismatchError, match=r"epochs: store has 3; this run asks for 4"):
        build(settings(data, built, epochs=4))
    assert content(built) == before


def test_other_data_are_refused(built: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "other.npy", np.zeros((N, 8, 8), np.uint8))
    with pytest.raises(StoreMismatchError, match=r"data\.content"):
        build(settings(tmp_path / "other.npy", built))


def test_a_folder_with_other_files_is_not_touched(data: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match=r"thesis\.txt"):
        build(settings(data, tmp_path))
    assert content(tmp_path) == {"thesis.txt": b"years of work"}


def test_own_checkpoints_are_used_with_their_learning_rates(data: Path, built: Path, tmp_path: Path) -> None:
    pattern = str(built / "checkpoints" / "*.safetensors")
    build(settings(data, tmp_path / "store", checkpoints=(pattern,)))
    ours, theirs = Store.open(tmp_path / "store"), Store.open(built)
    assert ours.learning_rates.tolist() == theirs.learning_rates.tolist()
    np.testing.assert_array_equal(ours.unit_sketches(1, 0, N), theirs.unit_sketches(1, 0, N))


@pytest.mark.parametrize("model", ["vae", "autoencoder", "classifier"])
def test_ready_made_models_build_and_verify(data: Path, tmp_path: Path, model: str) -> None:
    build(settings(data, tmp_path / "store", model=model, epochs=1, n_checkpoints=1))
    store = Store.open(tmp_path / "store")
    assert verify(store).ok
    assert np.isfinite(store.losses(0)).all()
    assert (store.norms(0) > 0).all()


def bad_task(tmp_path: Path, loss: str) -> str:
    (tmp_path / "bad.py").write_text(
        "import torch\nfrom torch import nn\nfrom gradstore import Task\n"
        "class Bad(Task):\n"
        "    encoder = '*'\n"
        "    def build(self):\n"
        "        return nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4))\n"
        "    def latent(self, model, batch):\n"
        "        return model(batch.inputs)\n"
        "    def loss(self, model, batch, noise):\n"
        f"        {loss}\n"
    )
    return f"{tmp_path / 'bad.py'}:Bad"


@pytest.mark.parametrize(
    ("loss", "error"),
    [
        ("return model(batch.inputs).square().mean()", LossShapeError),
        ("l = model(batch.inputs).square().sum(1); return l + 0.1 * l.mean()", MixedExamplesError),
        ("return model.train()(batch.inputs).square().sum(1)", TrainingModeError),
    ],
)
def test_losses_that_break_the_contract_are_refused(
    data: Path, built: Path, tmp_path: Path, loss: str, error: type[Exception]
) -> None:
    import torch

    from gradstore.models.user_task import load_task

    task = load_task(bad_task(tmp_path, loss))
    torch.save({"model": task.build().state_dict(), "lr": 0.1}, tmp_path / "weights.pt")
    with pytest.raises(error):
        build(
            settings(
                data, tmp_path / "store", model=bad_task(tmp_path, loss), checkpoints=(str(tmp_path / "weights.pt"),)
            )
        )


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("return model(batch.inputs).square().sum(2)", "Bad.loss raised IndexError: Dimension out of range"),
        ("raise KeyError('weights')", r"Bad.loss raised KeyError: 'weights' \(bad\.py, line 11\)"),
    ],
)
def test_a_loss_that_raises_is_told_before_anything_is_written(
    data: Path, tmp_path: Path, loss: str, message: str
) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        build(settings(data, tmp_path / "store", model=bad_task(tmp_path, loss)))
    assert isinstance(caught.value.__cause__, IndexError | KeyError)
    assert not (tmp_path / "store").exists()


def test_a_loss_that_raises_on_some_examples_only_is_told_when_they_come(data: Path, tmp_path: Path) -> None:
    import torch

    from gradstore.models.user_task import load_task

    loss = "assert len(batch) < 64, 'too many'; return model(batch.inputs).square().sum(1)"
    task = load_task(bad_task(tmp_path, loss))
    torch.save({"model": task.build().state_dict(), "lr": 0.1}, tmp_path / "weights.pt")
    weights = (str(tmp_path / "weights.pt"),)
    with pytest.raises(TaskError, match=r"Bad\.loss raised AssertionError: too many \(bad\.py") as caught:
        build(settings(data, tmp_path / "store", model=bad_task(tmp_path, loss), checkpoints=weights))
    assert isinstance(caught.value.__cause__, AssertionError)


def test_a_checkpoint_that_does_not_fit_is_refused_by_name(data: Path, built: Path, tmp_path: Path) -> None:
    wrong = str(next((built / "checkpoints").glob("*.safetensors")))
    with pytest.raises(CheckpointError):
        build(settings(data, tmp_path / "store", model="vae", checkpoints=(wrong,)))


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (np.full((20, 8, 8), np.nan, np.float32), NonFiniteDataError),
        (np.zeros(20, np.float32), SourceError),
        (np.zeros((20, 8), np.complex64), SourceError),
        (np.zeros((0, 8), np.float32), SourceError),
    ],
)
def test_unusable_arrays_are_refused_and_nothing_is_written(
    tmp_path: Path, values: np.ndarray[Any, Any], error: type[Exception]
) -> None:
    np.save(tmp_path / "bad.npy", values)
    with pytest.raises(error):
        build(settings(tmp_path / "bad.npy", tmp_path / "store"))
    assert not (tmp_path / "store").exists()


def test_a_classifier_without_labels_is_refused(data: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "plain.npy", np.zeros((20, 8, 8), np.uint8))
    with pytest.raises(MissingLabelsError):
        build(settings(tmp_path / "plain.npy", tmp_path / "store", model="classifier"))


def test_settings_that_cannot_work_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        build(settings(tmp_path / "missing.npy", tmp_path / "store"))
    with pytest.raises(TaskNotFoundError):
        build(settings(data, tmp_path / "store", model="vea"))
    with pytest.raises(ParametersError, match=r"head\.\*"):
        build(settings(data, tmp_path / "params", parameters="head.*"))
    assert not (tmp_path / "params").exists()
    with pytest.raises(SettingsError, match="--shard-rows is 100"):
        settings(data, tmp_path / "store", shard_rows=100)
    with pytest.raises(SettingsError, match="--learning-rate is nan"):
        settings(data, tmp_path / "store", learning_rate=float("nan"))
    with pytest.raises(SettingsError, match="--sketch-dim is 0"):
        settings(data, tmp_path / "store", sketch_dim=0)
    for seed in (-1, 2**63):
        with pytest.raises(SettingsError, match=f"--seed is {seed}; it must be a number from 0"):
            settings(data, tmp_path / "store", seed=seed)


def test_the_largest_seed_works(data: Path, tmp_path: Path) -> None:
    build(settings(data, tmp_path / "store", seed=2**63 - 1, epochs=1, n_checkpoints=1))
    assert gradstore.open(tmp_path / "store").proponents("3", k=2).num_rows == 2


def test_settings_take_strings_for_paths_and_for_what_is_repeatable() -> None:
    text: Any = {"source": "a.npy", "store": "a.store", "labels": "y.npy", "parameters": "all", "checkpoints": "*.pt"}
    found = BuildSettings(**text)
    assert (found.source, found.store, found.labels) == (Path("a.npy"), Path("a.store"), Path("y.npy"))
    assert (found.parameters, found.checkpoints) == (("all",), ("*.pt",))


def test_a_query_without_a_label_is_refused_where_the_model_needs_one(data: Path, tmp_path: Path) -> None:
    build(settings(data, tmp_path / "store", model="classifier", epochs=1, n_checkpoints=1))
    opened = gradstore.open(tmp_path / "store")
    with pytest.raises(QueryError, match="a query needs its own"):
        opened.proponents(np.zeros((1, 1, 8, 8), np.uint8))
    assert opened.proponents(["3"], k=2).num_rows == 2
    images = (load_digits().images[3:4] * 15).astype(np.uint8)[:, None]
    assert opened.neighbours(images, k=1).column("id").to_pylist() == ["3"]  # latents need no label
