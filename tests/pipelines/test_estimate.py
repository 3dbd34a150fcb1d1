"""A dry run leaves nothing behind, and counts what the build then makes.

How long the build then takes is compared by `tests/benchmarks/estimate.py`, on a machine that does nothing else.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gradstore.errors import NonFiniteDataError
from gradstore.store import Store
from gradstore_pipelines import trial
from gradstore_pipelines.build_store import build
from gradstore_pipelines.estimate import estimate
from gradstore_pipelines.settings import BuildSettings
from gradstore_pipelines.trial import SketchTrial, trial_folder


@pytest.fixture(autouse=True)
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted does not depend on how long things are tried."""
    monkeypatch.setattr(trial, "_SECONDS", 0.01)


@pytest.fixture
def settings(tmp_path: Path) -> BuildSettings:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).random((200, 12), np.float32))
    return BuildSettings(
        source=tmp_path / "rows.npy", store=tmp_path / "store", epochs=2, n_checkpoints=2, sketch_dim=64
    )


def test_files_shards_and_bytes_are_those_that_the_build_makes(settings: BuildSettings, tmp_path: Path) -> None:
    guess = estimate(settings)
    assert [file.name for file in tmp_path.iterdir()] == ["rows.npy"]
    build(settings)
    files = [file for file in (tmp_path / "store").rglob("*") if file.is_file()]
    assert guess.n_files == len(files)
    assert guess.n_bytes == pytest.approx(sum(file.stat().st_size for file in files), rel=0.01)
    assert guess.n_shards == len(list((tmp_path / "store" / "commits").iterdir()))


def test_it_times_every_step_and_measures_memory(settings: BuildSettings) -> None:
    guess = estimate(settings, seconds_before=1.0)
    assert guess.seconds_starting > 1.0
    assert min(guess.seconds_training, guess.seconds_sketching) > 0
    assert guess.seconds == guess.seconds_starting + guess.seconds_training + guess.seconds_sketching
    assert 50e6 < guess.memory < 50e9  # torch alone is the smaller, no laptop has the larger


def test_workers_are_tried_as_they_will_work(settings: BuildSettings) -> None:
    guess = estimate(dataclasses.replace(settings, workers=1))
    assert guess.n_workers == 1
    assert guess.memory_of_worker > 50e6


def test_of_a_store_that_is_begun_only_what_is_left_is_counted(settings: BuildSettings, tmp_path: Path) -> None:
    whole = estimate(settings)
    build(settings)
    store = Store.open(tmp_path / "store")
    store.discard(1, 0)
    left = estimate(settings)
    assert left.seconds_training == 0
    assert (left.n_shards, left.n_files) == (whole.n_shards, whole.n_files)
    assert store.n_committed == store.n_shards * 2 - 1


def test_bad_data_are_refused_as_the_build_would(settings: BuildSettings, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.full((20, 12), np.nan, np.float32))
    with pytest.raises(NonFiniteDataError):
        estimate(settings)
    assert [file.name for file in tmp_path.iterdir()] == ["rows.npy"]


def test_a_trial_lies_on_the_disk_of_the_store_and_goes(tmp_path: Path) -> None:
    with trial_folder(tmp_path / "not" / "yet" / "there.store") as folder:
        assert folder.parent == tmp_path
    assert not folder.exists()


@pytest.mark.parametrize(
    ("n_workers", "slower", "seconds"),
    [(0, 1.0, 1 + 2 + 11 + 4), (1, 1.0, 1 + 2 + 11 + 4), (2, 1.0, 1 + 2 + 6 + 4), (2, 3.0, 1 + 2 + 18 + 4)],
)
def test_shards_go_to_the_first_worker_that_is_free(n_workers: int, slower: float, seconds: float) -> None:
    tried = SketchTrial(opening=1, set_up=2, unit=3, rows=30, closing=4, memory=0)
    assert tried.whole([30, 30, 30, 20], n_workers, slower) == pytest.approx(seconds)
