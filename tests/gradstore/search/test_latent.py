from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float, Float32, Float64
from scipy.spatial.distance import cdist
from scipy.stats import ortho_group

from gradstore.errors import QueryError, ShapeError, StoreCorruptError
from gradstore.search import knn_distance, nearest_latents, unit_blocks, unit_reference
from gradstore.search.side_by_side import Blocks
from gradstore.testing.index_kit import MemoryRows


def store_of(points: Float[np.ndarray, "row d"], shard_rows: int = 1 << 30) -> MemoryRows:
    rows = MemoryRows.random(len(points), n_checkpoints=1)
    return replace(rows, points=points.astype(np.float32)[None], shard_rows=shard_rows)


def gaussian(n_rows: int, d: int, seed: int = 0) -> Float32[np.ndarray, "row d"]:
    return np.random.default_rng(seed).standard_normal((n_rows, d)).astype(np.float32)


@pytest.mark.parametrize("d", [1, 8, 200])
@pytest.mark.parametrize("offset", [0, 1000])
def test_neighbours_are_those_of_float64_brute_force(d: int, offset: int) -> None:
    points, queries = gaussian(400, d) + np.float32(offset), gaussian(7, d, seed=1) + np.float32(offset)
    found = nearest_latents(store_of(points), queries, 12, block_rows=90)
    truth = cdist(queries.astype(float), points.astype(float))
    np.testing.assert_array_equal(found.indices, np.argsort(truth, axis=1, kind="stable")[:, :12])
    np.testing.assert_allclose(found.distances, np.sort(truth, axis=1)[:, :12], rtol=1e-6)


@pytest.mark.parametrize("block_rows", [1, 7, 300])
def test_blocks_and_single_queries_change_nothing(block_rows: int) -> None:
    rows, queries = store_of(gaussian(300, 5).round(1), shard_rows=110), gaussian(260, 5, seed=2).round(1)
    whole = nearest_latents(rows, queries, 9)
    split = nearest_latents(rows, queries, 9, block_rows=block_rows)
    np.testing.assert_array_equal(whole.indices, split.indices)
    np.testing.assert_array_equal(whole.scores, split.scores)
    single = nearest_latents(rows, queries[259:], 9)
    np.testing.assert_array_equal(whole.indices[259:], single.indices)


def test_an_orthogonal_map_of_the_latent_space_changes_no_neighbour() -> None:
    points, queries = gaussian(500, 16), gaussian(20, 16, seed=3)
    turn = ortho_group.rvs(16, random_state=0).astype(np.float32)
    before = nearest_latents(store_of(points), queries, 10)
    after = nearest_latents(store_of(points @ turn), queries @ turn, 10)
    np.testing.assert_array_equal(before.indices, after.indices)
    np.testing.assert_allclose(before.scores, after.scores, rtol=1e-5)


def test_duplicates_have_finite_importance_and_stand_in_store_order() -> None:
    points = np.tile(gaussian(10, 3), (3, 1))
    found = nearest_latents(store_of(points), points[4:5], 4, eps=0.01)
    np.testing.assert_array_equal(found.indices[0, :3], [4, 14, 24])
    np.testing.assert_allclose(found.scores[0, :3], 100.0)
    np.testing.assert_allclose(found.scores, 1 / (found.distances + 0.01), rtol=1e-6)


def test_an_example_may_be_kept_from_finding_itself() -> None:
    points = gaussian(50, 3)
    found = nearest_latents(store_of(points), points, 49, exclude=list(range(50)), block_rows=8)
    for row, indices in enumerate(found.indices):
        assert sorted([row, *indices]) == list(range(50))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(-8, 8))
def test_scaling_the_space_scales_distances(seed: int, exponent: int) -> None:
    points, queries = gaussian(40, 3, seed), gaussian(2, 3, seed + 1)
    scale = np.float32(2.0**exponent)
    before, after = (nearest_latents(store_of(points * s), queries * s, 5) for s in (np.float32(1), scale))
    np.testing.assert_array_equal(before.indices, after.indices)
    np.testing.assert_array_equal(before.distances * scale, after.distances)


def test_the_last_checkpoint_is_searched_unless_told_otherwise() -> None:
    rows = MemoryRows.random(40, n_checkpoints=3)
    for checkpoint, index in ((0, 0), (1, 1), (-1, 2)):
        found = nearest_latents(rows, rows.points[index, :5], 1, checkpoint=checkpoint)
        np.testing.assert_array_equal(found.indices[:, 0], np.arange(5))


def test_bad_latent_questions_are_refused() -> None:
    rows = store_of(gaussian(10, 3))
    with pytest.raises(QueryError, match="k=11 is larger than the store's 10 examples; ask for at most 10"):
        nearest_latents(rows, gaussian(1, 3), 11)
    with pytest.raises(ShapeError, match="queries' latents have 4 dimensions; the store's have 3"):
        nearest_latents(rows, gaussian(1, 4), 2)
    rows.points[0, 5] = np.nan
    with pytest.raises(StoreCorruptError, match="Latents of rows 0 to 9"):
        nearest_latents(rows, gaussian(1, 3), 2)


def in_blocks(points: Float[np.ndarray, "row d"], size: int) -> Blocks:
    def blocks() -> Iterator[tuple[int, Float[np.ndarray, "row d"]]]:
        yield from ((start, points[start : start + size]) for start in range(0, len(points), size))

    return blocks


def brute_force_knn(
    points: Float[np.ndarray, "row d"], chosen: list[int], k: int, metric: Literal["euclidean", "cosine"]
) -> Float64[np.ndarray, " row"]:
    distances = cdist(points.astype(float), points[chosen].astype(float), metric)
    distances[chosen, np.arange(len(chosen))] = np.inf
    return np.asarray(np.sort(distances, axis=1)[:, :k].mean(axis=1))


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("block_rows", [7, 120])
def test_knn_distance_is_the_mean_over_the_k_nearest_others(
    block_rows: int, metric: Literal["euclidean", "cosine"]
) -> None:
    points = gaussian(120, 6)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    chosen = [3, 50, 51, 90, 119, 0]
    found = knn_distance(in_blocks(points, block_rows), points[chosen], 4, np.array(chosen), metric=metric)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, brute_force_knn(points, chosen, 4, metric), atol=1e-6)


def test_knn_distance_of_near_duplicates_far_from_the_origin_keeps_its_digits() -> None:
    points = gaussian(60, 3) * np.float32(1e-2) + np.float32(1000)
    chosen = list(range(0, 60, 2))
    found = knn_distance(in_blocks(points, 60), points[chosen], 3, np.array(chosen))
    np.testing.assert_allclose(found, brute_force_knn(points, chosen, 3, "euclidean"), rtol=1e-5)


def test_knn_distance_of_sketches_is_the_cosine_distance_averaged_over_checkpoints() -> None:
    rows = MemoryRows.random(80, n_checkpoints=3)
    chosen = np.arange(0, 80, 3)
    found = knn_distance(unit_blocks(rows), unit_reference(rows, chosen), 5, chosen, metric="cosine")
    distances = np.mean([cdist(u.astype(float), u[chosen].astype(float), "cosine") for u in rows.units], axis=0)
    distances[chosen, np.arange(len(chosen))] = np.inf
    np.testing.assert_allclose(found, np.sort(distances, axis=1)[:, :5].mean(axis=1), atol=1e-6)


def test_a_row_without_a_gradient_is_at_distance_one_from_all() -> None:
    rows = MemoryRows.random(20)
    rows.units[:, 4] = 0
    chosen = np.arange(10)
    found = knn_distance(unit_blocks(rows), unit_reference(rows, chosen), 3, chosen, metric="cosine")
    assert found[4] == 1.0


def test_a_reference_set_that_is_too_small_is_refused() -> None:
    points = gaussian(10, 2)
    with pytest.raises(QueryError, match="k=5 neighbours cannot be found among 5 reference examples"):
        knn_distance(in_blocks(points, 10), points[:5], 5, np.arange(5))
    with pytest.raises(ShapeError, match="5 reference examples but 4 row numbers"):
        knn_distance(in_blocks(points, 10), points[:5], 2, np.arange(4))
