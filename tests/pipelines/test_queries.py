"""Queries from files, for a store of 6 x 5 colour images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gradstore.errors import QueryError
from gradstore.store import Store
from gradstore.store.place import place_of
from gradstore.testing.store_kit import manifest_of
from gradstore_pipelines.queries import open_queries


def store_of_shape(path: Path, shape: tuple[int, ...], dtype: str = "uint8") -> Store:
    settings = {"request": {"data": {"example_shape": list(shape), "dtype": dtype}}}
    return Store(place_of(path), manifest_of(settings=settings, label_names=("cat", "dog")))


@pytest.mark.parametrize(
    ("shape", "saved", "n_queries"),
    [
        ((3, 6, 5), (3, 6, 5), 1),
        ((3, 6, 5), (6, 5, 3), 1),
        ((3, 6, 5), (4, 6, 5, 3), 4),
        ((1, 6, 5), (6, 5), 1),
        ((1, 6, 5), (3, 6, 5), 3),
        ((7,), (7,), 1),
        ((7,), (7, 7), 7),
        ((4, 5, 6, 7), (4, 5, 6, 7), 1),
    ],
)
def test_an_array_of_the_examples_shape_is_one_query(
    tmp_path: Path, shape: tuple[int, ...], saved: tuple[int, ...], n_queries: int
) -> None:
    values = np.random.default_rng(0).integers(0, 256, saved, dtype=np.uint8)
    np.save(tmp_path / "q.npy", values)
    batch, ids = open_queries(store_of_shape(tmp_path, shape), tmp_path / "q.npy")
    assert (batch.inputs.shape, len(ids)) == ((n_queries, *shape), n_queries)
    first = values if n_queries == 1 else values[0]
    as_shown = np.moveaxis(first, -1, 0) if first.shape[-1] == 3 else first
    np.testing.assert_allclose(batch.inputs[0].numpy(), as_shown.reshape(shape) / np.float32(255), rtol=1e-6)


def test_one_query_takes_one_label(tmp_path: Path) -> None:
    np.save(tmp_path / "q.npy", np.zeros((3, 6, 5), np.uint8))
    (tmp_path / "labels.txt").write_text("dog\n")
    batch, _ = open_queries(store_of_shape(tmp_path, (3, 6, 5)), tmp_path / "q.npy", tmp_path / "labels.txt")
    assert batch.labels is not None
    assert batch.labels.tolist() == [1]


def test_another_shape_or_type_is_refused_with_both(tmp_path: Path) -> None:
    np.save(tmp_path / "q.npy", np.zeros((3, 6, 5), np.float32))
    with pytest.raises(QueryError, match=r"float32 examples of shape \(3, 6, 5\).*uint8 of shape \(3, 6, 5\)"):
        open_queries(store_of_shape(tmp_path, (3, 6, 5)), tmp_path / "q.npy")
