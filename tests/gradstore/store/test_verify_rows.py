"""Rows that were committed as they are, and cannot be right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradstore.store import SetRows, ShardRows, Store, verify
from gradstore.store.commits import CommitRecord, FileHash, record_name
from gradstore.testing.store_kit import arrays_for, example_batches, fill, manifest_of

K = 256


@pytest.fixture
def store(tmp_path: Path) -> Store:
    manifest = manifest_of(
        n_examples=40, d_sketch=K, shard_rows=16, n_draws=2, parameter_sets=("a", "b"), layers={"a": ["x"], "b": ["y"]}
    )
    store = Store.create(tmp_path / "s", manifest, example_batches([f"x{row}" for row in range(40)]))
    fill(store, *arrays_for(store))
    return store


def change(
    store: Store, name: str, dtype: str, do: Callable[[Any], object], checkpoint: int = 0, shard: int = 1
) -> None:
    """Write other numbers into a shard, and a record that vouches for them: a bug in what computed them."""
    file = store.folder / name
    values = np.frombuffer(file.read_bytes(), dtype).copy()
    do(values)
    file.write_bytes(values.tobytes())
    held = CommitRecord.read(store.place, checkpoint, shard)
    files = {**held.files, name: FileHash.read(file)}
    record = CommitRecord(checkpoint, shard, held.rows, files, held.fingerprint, held.format_version)
    (store.folder / record_name(checkpoint, shard)).write_bytes(record.to_bytes())


def test_sound_rows_have_no_fault_and_no_note(store: Store) -> None:
    report = verify(store)
    assert (report.ok, report.notes) == (True, ())


def test_nan_and_infinity_are_found_by_name(store: Store) -> None:
    change(store, "losses/c.0.1", "<f4", lambda values: values.__setitem__(3, np.nan))
    change(store, "latents/c.0.1.0", "<f4", lambda values: values.__setitem__(0, np.inf))
    report = verify(store)
    assert report.bad_rows == ("losses/c.0.1", "latents/c.0.1.0")
    assert any("1 rows hold NaN or infinity: 'x19'" in problem for problem in report.problems)


def test_a_sketch_of_zeros_beside_a_norm_is_found(store: Store) -> None:
    change(store, "sketches-1/c.0.1.0", "<f2", lambda values: values.__setitem__(slice(0, K), 0))
    (problem,) = verify(store).problems
    assert "sketches-1/c.0.1.0: 1 rows hold all zeros beside a norm above 0: 'x16'" in problem


def test_a_sketch_beside_a_norm_of_zero_is_found(store: Store) -> None:
    change(store, "norms/c.0.1", "<f4", lambda values: values.__setitem__(2, 0))
    report = verify(store)
    assert any("a sketch beside a norm of 0: 'x18'" in problem for problem in report.problems)


@pytest.mark.parametrize("factor", [0.5, 1.5])
def test_norms_that_are_not_those_of_the_sketches_are_found(store: Store, factor: float) -> None:
    def scale(values: Any) -> None:
        values[:] = (values.astype(np.float32) * factor).astype(np.float16)

    change(store, "sketches/c.0.1.0", "<f2", scale)
    (problem,) = verify(store).problems
    assert f"is {factor**2:.3g}"[:6] in problem
    assert "They are not of the same gradients" in problem


def test_deviations_that_a_projection_may_have_are_no_fault(store: Store) -> None:
    """By six standard deviations, sqrt(2/k) each, in all rows."""

    def scale(values: Any) -> None:
        values[:] = (values.astype(np.float32) * np.sqrt(1 + 6 * np.sqrt(2 / K))).astype(np.float16)

    change(store, "sketches/c.0.1.0", "<f2", scale)
    assert verify(store).ok


def test_layers_and_draws_that_contradict_the_norm_are_found(store: Store) -> None:
    change(store, "layer_norms/c.0.1.0", "<f4", lambda values: values.__setitem__(0, 99.0))
    change(store, "draw_norms/c.0.1", "<f4", lambda values: values.__setitem__(1, 0.0))
    assert verify(store).bad_rows == ("layer_norms/c.0.1.0", "draw_norms/c.0.1")


def test_examples_without_a_gradient_are_worth_a_note(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "z", manifest_of(n_examples=4), example_batches([f"x{row}" for row in range(4)]))
    for checkpoint in range(2):
        gradients = np.eye(4, 5, dtype=np.float32) * (np.arange(4)[:, None] != 2)
        rows = SetRows(gradients, np.square(gradients, dtype=np.float64).sum(axis=1))
        shard = ShardRows({"all": rows}, np.zeros(4, np.float32), np.zeros((4, 3), np.float32))
        store.write_shard(checkpoint, 0, shard)
    report = verify(store)
    assert report.ok
    assert report.notes[0] == "1 of 4 examples have no gradient of 'all' at checkpoint 0."
