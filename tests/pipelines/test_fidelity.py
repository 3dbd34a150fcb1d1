"""Fidelity of a real store: what is measured is the store's own model, data, checkpoints and projection."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradstore.errors import QueryError, SourceNotFoundError, StoreNotFoundError
from gradstore.search.rows import stored_queries
from gradstore.store import Store
from gradstore.store.sealed import sealed
from gradstore_pipelines.build_store import build
from gradstore_pipelines.fidelity import fidelity
from gradstore_pipelines.fidelity_result import FidelityResult
from gradstore_pipelines.fidelity_settings import FidelitySettings
from gradstore_pipelines.progress import Advance
from gradstore_pipelines.settings import BuildSettings, SettingsError

TOY = f"{Path(__file__).parent / 'toy_task.py'}:Toy"
N = 70


class Listener:
    """Remembers what was said and how far the work came."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.total = self.done = 0

    @contextmanager
    def task(self, title: str, total: int, unit: str, done: int = 0, *, unit_bytes: int = 0) -> Iterator[Advance]:
        self.total += total
        yield self._advance

    def say(self, message: str) -> None:
        self.said.append(message)

    def _advance(self, n: int) -> None:
        self.done += n


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fidelity")
    np.save(folder / "rows.npy", np.random.default_rng(0).random((N, 64), np.float32))
    build(
        BuildSettings(
            source=folder / "rows.npy", store=folder / "store", model=TOY, epochs=3, n_checkpoints=3, sketch_dim=32
        )
    )
    return folder / "store"


def measured(store: Path, reporter: Listener | None = None, **values: Any) -> FidelityResult:
    return fidelity(FidelitySettings(store=store, device="cpu", **values), reporter)


def test_the_stored_rows_are_what_is_measured(store: Path) -> None:
    """At the store's own length |sketch|² errs as the stored rows do; another projection would err otherwise."""
    (own,) = (m.agreement for m in measured(store, sample=N, sketch_dim=(32,)).lengths)
    opened = Store.open(store)
    rows = stored_queries(opened, np.arange(N))
    exact = np.square(rows.norms.astype(np.float64))
    sketched = exact * np.square(rows.unit.astype(np.float64)).sum(axis=2)
    own_influence, own_sketched = opened.learning_rates @ exact, opened.learning_rates @ sketched
    errors = np.abs(own_sketched - own_influence) / own_influence
    assert own.self_influence_error_mean == pytest.approx(errors.mean(), rel=1e-3)
    assert own.self_influence_error_max == pytest.approx(errors.max(), rel=1e-3)


def test_stored_norms_are_those_of_plain_autograd(store: Path) -> None:
    error = measured(store).norm_error
    assert error is not None
    assert error < 1e-5  # the engine's contract in float32


def test_each_set_of_parameters_is_measured_by_itself(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).random((12, 64), np.float32))
    sets = {"model": TOY, "epochs": 1, "n_checkpoints": 1, "sketch_dim": 16, "parameters": ("encoder", "decoder")}
    build(BuildSettings(source=tmp_path / "rows.npy", store=tmp_path / "store", **sets))  # type: ignore[arg-type]
    first, second = (measured(tmp_path / "store", parameters=name) for name in (None, "decoder"))
    assert (first.parameters, second.parameters) == ("encoder", "decoder")
    for result in (first, second):
        assert result.norm_error is not None
        assert result.norm_error < 1e-5  # against the norms of another set it would be near 1
    with pytest.raises(QueryError, match="'encoder', 'decoder', not of 'all'"):
        measured(tmp_path / "store", parameters="all")


def test_lengths_are_around_the_store_s_or_those_asked_for(store: Path) -> None:
    assert [m.agreement.d_sketch for m in measured(store, sample=5).lengths] == [8, 16, 32, 64, 128]
    asked = measured(store, sample=5, sketch_dim=(100, 3, 100))
    assert [m.agreement.d_sketch for m in asked.lengths] == [3, 100]


def test_bytes_are_those_of_the_arrays(store: Path) -> None:
    (own,) = measured(store, sample=5, sketch_dim=(32,)).lengths
    arrays = [file for name in ("sketches", "norms", "losses", "latents") for file in (store / name).glob("c.*")]
    padded = sum(file.stat().st_size for file in arrays)
    opened = Store.open(store)
    assert own.bytes_of_store == own.bytes_a_row * N * 3
    assert padded == own.bytes_a_row * opened.n_shards * opened.manifest.shard_rows * 3


def test_the_sample_is_the_seed_s(store: Path) -> None:
    first, again, other = (measured(store, sample=30, sketch_dim=(16,), seed=seed) for seed in (1, 1, 2))
    assert first.to_json() == again.to_json()
    assert first.to_json() != other.to_json()


@pytest.mark.parametrize(("asked", "chosen"), [(None, (0, 1, 2)), (1, (2,)), (2, (0, 2)), (3, (0, 1, 2))])
def test_checkpoints_are_spread_and_the_last_is_among_them(
    store: Path, asked: int | None, chosen: tuple[int, ...]
) -> None:
    assert measured(store, sample=5, checkpoints=asked).checkpoints == chosen


def test_more_than_the_store_holds_is_all_of_it_and_said(store: Path) -> None:
    listener = Listener()
    result = measured(store, listener, sample=500, checkpoints=9, sketch_dim=(8,))
    assert (result.n_examples, result.n_stored, result.checkpoints) == (N, N, (0, 1, 2))
    assert "70 examples, fewer than --sample 500" in listener.said[0]
    assert "3 checkpoints, fewer than --checkpoints 9" in listener.said[1]


def test_progress_ends_where_it_said(store: Path) -> None:
    listener = Listener()
    measured(store, listener, sample=20)
    assert listener.done == listener.total == 3 * 20


def test_an_unfinished_store_can_be_measured(store: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "store"
    shutil.copytree(store, unfinished)
    next((unfinished / "commits").glob("*.json")).unlink()
    result = measured(unfinished, sketch_dim=(32,))
    assert result.norm_error is None
    assert result.lengths == measured(store, sketch_dim=(32,)).lengths


def test_a_program_reads_null_where_a_number_is_not_defined(store: Path) -> None:
    result = measured(store, sample=5)
    rows = json.loads(json.dumps(result.to_json(), allow_nan=False))["rows"]
    assert {row["recall_10"] for row in rows} == {None}
    assert (result.recommended, result.best_recall) == (None, None)
    assert result.table().to_pylist() == rows


def test_two_examples_are_too_few(tmp_path: Path) -> None:
    np.save(tmp_path / "two.npy", np.random.default_rng(0).random((2, 64), np.float32))
    build(BuildSettings(source=tmp_path / "two.npy", store=tmp_path / "store", model=TOY, epochs=1, n_checkpoints=1))
    with pytest.raises(QueryError, match="was given 2"):
        measured(tmp_path / "store")


def test_data_that_have_gone_are_named(store: Path, tmp_path: Path) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    manifest = (copy / "manifest.json").read_text().replace("rows.npy", "gone.npy")
    (copy / "manifest.json").write_text(sealed(json.loads(manifest)))
    with pytest.raises(SourceNotFoundError, match=r"gone\.npy"):
        measured(copy)
    with pytest.raises(StoreNotFoundError):
        measured(tmp_path / "nothing")


@pytest.mark.parametrize(
    "values",
    [
        *({"sample": 2}, {"sample": 5000}, {"recall": 0}, {"recall": 1.1}, {"recall": float("nan")}),
        *({"checkpoints": 0}, {"memory": 0}, {"sketch_dim": (0,)}, {"sketch_dim": (8, 100_000)}, {"seed": -1}),
    ],
)
def test_settings_out_of_range_are_refused_by_name(tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"--{next(iter(values)).replace('_', '-')} is"):
        FidelitySettings(store=tmp_path, **values)
