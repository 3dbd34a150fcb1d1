"""Stores of every format version still open, and today's code still means the same by their rows."""

from __future__ import annotations

import itertools
import json
import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gradstore
from gradstore.store import verify
from gradstore.store.manifest import FORMAT_VERSION
from gradstore.task import Batch, example_keys
from gradstore_pipelines.stages.sketch import SketchStage

OLD_STORES = Path(__file__).parents[2] / "old_stores"
VERSIONS = sorted(path.name for path in OLD_STORES.iterdir() if (path / "manifest.json").is_file())


@pytest.fixture(params=VERSIONS)
def old(request: pytest.FixtureRequest, tmp_path: Path) -> gradstore.GradientStore:
    copy = tmp_path / request.param
    shutil.copytree(OLD_STORES / request.param, copy)
    return gradstore.open(copy)


@pytest.fixture(scope="module")
def rows() -> np.ndarray[Any, Any]:
    made: np.ndarray[Any, Any] = runpy.run_path(str(OLD_STORES / "make.py"))["rows"]()
    return made


def batch_of(old: gradstore.GradientStore, rows: np.ndarray[Any, Any]) -> Batch:
    """The examples as the build saw them: under their own ids, with the labels that make.py gives them."""
    labels = torch.from_numpy((rows[:, 0] > 0).astype(np.int64)) if old.store.labels() is not None else None
    keys = example_keys(str(row) for row in range(len(rows)))
    return old.as_batch(Batch(torch.from_numpy(rows), labels, keys))


def test_there_is_one_of_each_version() -> None:
    assert {f"v{version}" for version in range(1, FORMAT_VERSION + 1)} == {name.split("-")[0] for name in VERSIONS}


def test_an_old_store_verifies_and_ranks(old: gradstore.GradientStore) -> None:
    assert verify(old.store).ok
    assert old.rank().num_rows == 70
    ranked = set(old.rank(by="unit_leverage", top=3).column("id").to_pylist())
    assert ranked == {"3", "30", "69"} or old.store.labels() is not None  # a classifier need not mind them


def test_queries_are_sketched_as_the_old_rows_were(old: gradstore.GradientStore, rows: np.ndarray[Any, Any]) -> None:
    """The projection, the model and its checkpoints mean what they meant (the noise is the query's own id's)."""
    for name in old.store.parameter_sets:
        found, store = old.sketcher.queries(batch_of(old, rows), name), old.store.of_set(name)
        for checkpoint in range(store.n_checkpoints):
            stored = store.precise_sketches(checkpoint, 0, len(rows))
            # float16 rounds by 2^-11 of a value, int8 by half of 1/127; another machine's sums differ far less.
            rounding = 2.0**-8 if store.manifest.sketch_dtype == "int8" else 2.0**-10
            np.testing.assert_allclose(found.unit[checkpoint], stored, atol=rounding)
            np.testing.assert_allclose(found.norms[checkpoint], store.norms(checkpoint), rtol=1e-4)


def test_norms_by_layer_and_over_draws_mean_what_they_meant(
    old: gradstore.GradientStore, rows: np.ndarray[Any, Any]
) -> None:
    batch = batch_of(old, rows)
    for checkpoint, name in itertools.product(range(old.store.n_checkpoints), old.store.parameter_sets):
        found, store = old.sketcher.gradients(checkpoint, batch).sets[name], old.store.of_set(name)
        if store.keeps("layer_norms"):
            layer_norms = store.layer_norms(checkpoint, 0, len(rows))
            np.testing.assert_allclose(found.layer_sq_norms.sqrt(), layer_norms, rtol=1e-4)
        if store.keeps("draw_norms"):
            assert found.draw_sq_norms is not None
            np.testing.assert_allclose(found.draw_sq_norms.sqrt(), store.draw_norms(checkpoint), rtol=1e-4)


def test_predictions_are_the_log_probabilities_that_they_were(
    old: gradstore.GradientStore, rows: np.ndarray[Any, Any]
) -> None:
    for checkpoint in range(old.store.n_checkpoints if old.store.keeps("predictions") else 0):
        found = old.sketcher.gradients(checkpoint, batch_of(old, rows)).predictions
        assert found is not None
        stored = old.store.predictions(checkpoint, 0, len(rows)).astype(np.float32)
        np.testing.assert_allclose(stored, found, rtol=2.0**-10, atol=2.0**-14)
        np.testing.assert_allclose(np.exp(stored).sum(axis=1), 1, rtol=2.0**-9)


def test_a_store_that_is_finished_stays_of_its_format(
    old: gradstore.GradientStore, rows: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of a shard that today's code writes is the old one's, but for the hashes of its files."""
    np.save(old.store.folder.parent / "rows.npy", rows)
    np.save(old.store.folder.parent / "labels.npy", (rows[:, 0] > 0).astype(np.int64))
    monkeypatch.chdir(old.store.folder.parent)
    record = old.store.folder / "commits" / "1-1.json"
    before = json.loads(record.read_text())
    old.store.discard(1, 1)
    (unit,) = (stage := SketchStage(old.store.folder, 64, "cpu")).units()
    stage.run_unit(unit)
    after = json.loads(record.read_text())
    assert {**after, "files": sorted(after["files"])} == {**before, "files": sorted(before["files"])}
    assert after["format_version"] == old.store.manifest.format_version
    assert verify(old.store).ok
