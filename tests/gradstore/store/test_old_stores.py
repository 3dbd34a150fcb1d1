"""Stores of every format version still open, and today's code still means the same by their rows."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradstore
from gradstore.store import verify

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


def test_there_is_one_of_each_version() -> None:
    assert VERSIONS[:1] == ["v1"]


def test_an_old_store_verifies_and_ranks(old: gradstore.GradientStore) -> None:
    assert verify(old.store).ok
    assert set(old.rank(top=3).column("id").to_pylist()) == {"3", "30", "69"}


def test_queries_are_sketched_as_the_old_rows_were(old: gradstore.GradientStore, rows: np.ndarray[Any, Any]) -> None:
    """The projection, the model and its checkpoints mean what they meant (the noise is the query's own id's)."""
    from gradstore.task import Batch, example_keys

    batch = Batch(old.as_batch(rows).inputs, None, example_keys(str(row) for row in range(len(rows))))
    found = old.sketcher.queries(batch)
    for checkpoint in range(old.store.n_checkpoints):
        stored = old.store.unit_sketches(checkpoint, 0, len(rows)).astype(np.float32)
        # float16 rounds by 2^-11 of a value; another machine's float32 sums differ far less.
        np.testing.assert_allclose(found.unit[checkpoint], stored, atol=2.0**-10)
        np.testing.assert_allclose(found.norms[checkpoint], old.store.norms(checkpoint), rtol=1e-4)
