"""Latent neighbours by every metric, over one checkpoint or several, with filters, of a store in the making."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from gradstore.errors import QueryError, ShapeError, StoreIncompleteError
from gradstore.search import nearest_latents
from gradstore.search.filters import Filter
from gradstore.search.space import Metric, Space
from gradstore.store import Store
from gradstore.testing.index_kit import MemoryRows
from gradstore.testing.store_kit import arrays_for, example_batches, manifest_of, shard_rows_of


def rows_of(points: np.ndarray[Any, Any]) -> MemoryRows:
    """Latents [checkpoint, example, d]."""
    return replace(MemoryRows.random(points.shape[1], n_checkpoints=len(points)), points=points.astype(np.float32))


def gaussian(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def brute_force(points: np.ndarray[Any, Any], queries: np.ndarray[Any, Any], metric: Metric) -> np.ndarray[Any, Any]:
    """[query, example] distances by their definitions, over all checkpoints together."""
    kind: Literal["euclidean", "cosine"] = "euclidean" if metric == "l2" else "cosine"
    each = np.stack([cdist(q.astype(float), p.astype(float), kind) for q, p in zip(queries, points, strict=True)])
    return np.asarray(np.sqrt(np.square(each).mean(axis=0)) if metric == "l2" else each.mean(axis=0))


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("n_checkpoints", [1, 3])
def test_neighbours_are_those_of_the_metric_s_definition(metric: Metric, n_checkpoints: int) -> None:
    points, queries = gaussian(n_checkpoints, 200, 6) * 3, gaussian(n_checkpoints, 9, 6, seed=1)
    checkpoints = list(range(n_checkpoints))
    found = nearest_latents(rows_of(points), queries, 11, checkpoint=checkpoints, metric=metric, block_rows=70)
    truth = brute_force(points, queries, metric)
    np.testing.assert_array_equal(found.indices, np.argsort(truth, axis=1)[:, :11])
    np.testing.assert_allclose(found.distances, np.sort(truth, axis=1)[:, :11], rtol=1e-5, atol=1e-7)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(1e-30, 1e30))
def test_the_cosine_does_not_depend_on_lengths(seed: int, scale: float) -> None:
    points, queries = gaussian(1, 40, 3, seed=seed), gaussian(2, 3, seed=seed + 1)
    before = nearest_latents(rows_of(points), queries, 5, metric="cosine")
    lengths = np.geomspace(1e-4, 1e4, 40).astype(np.float32)[:, None]
    after = nearest_latents(rows_of(points * lengths), queries * np.float32(scale), 5, metric="cosine")
    np.testing.assert_array_equal(before.indices, after.indices)
    np.testing.assert_allclose(before.distances, after.distances, rtol=1e-4, atol=1e-6)


def test_a_latent_of_zeros_is_at_cosine_distance_one_from_all() -> None:
    points = gaussian(1, 20, 3)
    points[0, [4, 7]] = 0
    found = nearest_latents(rows_of(points), points[0, [4, 1]], 20, metric="cosine")
    np.testing.assert_allclose(found.distances[0], 1.0, atol=1e-12)
    np.testing.assert_allclose(found.distances[1][np.isin(found.indices[1], [4, 7])], 1.0, atol=1e-12)


def test_rows_in_one_direction_tie_whatever_their_lengths_and_stand_in_store_order() -> None:
    lengths = np.random.default_rng(0).permutation(np.arange(1, 21))[:, None]  # whole numbers: exact in float32
    points = lengths * np.array([[3, -1, 2, 7]])
    found = nearest_latents(rows_of(points[None]), gaussian(1, 4, seed=1), 20, metric="cosine")
    np.testing.assert_array_equal(found.indices[0], np.arange(20))


def test_a_duplicate_is_at_cosine_distance_zero() -> None:
    points = np.tile(gaussian(1, 10, 5), (1, 2, 1))
    found = nearest_latents(rows_of(points), points[0, :10], 2, metric="cosine")
    np.testing.assert_array_equal(found.indices, np.stack([np.arange(10), np.arange(10, 20)], axis=1))
    assert (found.distances == 0).all()


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_a_filter_answers_as_a_store_of_those_rows_would(metric: Metric) -> None:
    points, queries = gaussian(1, 90, 4), gaussian(5, 4, seed=1)
    allowed = np.arange(90) % 3 == 0
    found = nearest_latents(rows_of(points), queries, 8, metric=metric, filter=Filter(allowed), block_rows=20)
    alone = nearest_latents(rows_of(points[:, allowed]), queries, 8, metric=metric)
    np.testing.assert_array_equal(found.indices, np.flatnonzero(allowed)[alone.indices])
    np.testing.assert_array_equal(found.distances, alone.distances)


def test_lists_of_rows_may_be_hidden_from_a_query() -> None:
    points = gaussian(1, 30, 4)
    hidden = [[3, 4, 29], [], [0]]
    found = nearest_latents(rows_of(points), points[0, :3], 27, exclude=hidden, block_rows=4)
    for rows, indices in zip(hidden, found.indices, strict=True):
        assert not set(rows) & set(indices.tolist())


def test_what_a_filter_leaves_bounds_k() -> None:
    only = Filter(np.arange(30) < 6, "the label cat")
    with pytest.raises(QueryError, match="k=6 is larger than the 5 other examples that the label cat leaves"):
        nearest_latents(rows_of(gaussian(1, 30, 4)), gaussian(1, 4), 6, exclude=[2], filter=only)
    with pytest.raises(QueryError, match="filter is for 6 examples; the store has 30"):
        nearest_latents(rows_of(gaussian(1, 30, 4)), gaussian(1, 4), 1, filter=Filter(np.ones(6, np.bool_)))


def test_spaces_that_there_are_not_are_refused() -> None:
    rows = rows_of(gaussian(2, 30, 4))
    with pytest.raises(QueryError, match="metric='manhattan' is unknown; use one of l2, cosine"):
        nearest_latents(rows, gaussian(1, 4), 1, metric="manhattan")  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="Gradients are compared by metric=cosine"):
        Space.of(rows, "gradient", "l2")
    with pytest.raises(QueryError, match="checkpoints 0 to 1, not 2"):
        nearest_latents(rows, gaussian(1, 4), 1, checkpoint=2)
    with pytest.raises(ShapeError, match="are of 1 checkpoints; 2 are to be compared"):
        nearest_latents(rows, gaussian(1, 4), 1, checkpoint=[0, 1])
    with pytest.raises(QueryError, match="NaN"):
        nearest_latents(rows, gaussian(1, 4) * np.float32(np.nan), 1)


def test_an_unfinished_store_answers_from_what_is_done(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", manifest_of(), example_batches([f"x{row}" for row in range(11)]))
    arrays = arrays_for(store)
    queries = arrays[2][1, :2]
    with pytest.raises(StoreIncompleteError, match="0 of 11 examples"):
        nearest_latents(store, queries, 1)
    store.write_shard(1, 2, shard_rows_of(store, 1, 2, *arrays))
    found = nearest_latents(store, queries, 3)
    assert set(found.indices.flat) == {8, 9, 10}
    with pytest.raises(QueryError, match="k=4 is larger than the 3 examples that are done so far"):
        nearest_latents(store, queries, 4)
    with pytest.raises(StoreIncompleteError, match="3 of 11 examples"):
        nearest_latents(store, queries, 3, require_complete=True)
