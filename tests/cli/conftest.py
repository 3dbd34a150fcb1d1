from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from gradstore_cli.main import app

Gradstore = Callable[..., Result]


@pytest.fixture(scope="session")
def gradstore() -> Gradstore:
    """Runs a command in this process: `gradstore("status", store)`."""
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data under the names that the help texts use: digits.npz, more.npz, photos/ and digit.png."""
    folder, rng = tmp_path_factory.mktemp("cli"), np.random.default_rng(0)
    images = rng.integers(0, 256, (130, 8, 8), dtype=np.uint8)
    ids = np.array([f"digit-{row:04d}" for row in range(len(images))])
    np.savez(folder / "digits.npz", images=images, labels=np.arange(len(images)) % 10, ids=ids)
    more = rng.integers(0, 256, (70, 8, 8), dtype=np.uint8)
    np.savez(folder / "more.npz", images=more, labels=np.arange(70) % 10, ids=[f"more-{row:04d}" for row in range(70)])
    Image.fromarray(images[7]).save(folder / "digit.png")
    (folder / "photos" / "cats").mkdir(parents=True)
    for row in range(6):
        picture = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / "photos" / "cats" / f"{row}.png")
    return folder


@pytest.fixture(scope="session")
def small_build(folder: Path) -> tuple[object, ...]:
    """The command that makes `store`, but for --store."""
    small = ("--epochs", 2, "--n-checkpoints", 2, "--sketch-dim", 64, "--device", "cpu")
    return ("build", folder / "digits.npz", *small)


@pytest.fixture(scope="session")
def store(gradstore: Gradstore, folder: Path, small_build: tuple[object, ...]) -> Path:
    """A small finished store. Tests read it, or work on a copy."""
    built = gradstore(*small_build, "--store", folder / "small.store")
    assert built.exit_code == 0, built.stderr
    return folder / "small.store"


@pytest.fixture
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dry runs count the same, and measure less."""
    monkeypatch.setattr("gradstore_pipelines.trial._SECONDS", 0.01)
