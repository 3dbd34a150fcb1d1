"""The graph: the true neighbours of every example, however the work is cut, interrupted and asked for again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from gradstore.errors import (
    IndexMismatchError,
    IndexNotFoundError,
    QueryError,
    StoreIncompleteError,
    StoreMismatchError,
    UnknownExampleError,
)
from gradstore.search.graph import GraphFiles, KnnGraph
from gradstore.store import Store
from gradstore.testing.store_kit import arrays_for, example_batches, manifest_of, shard_rows_of, store_of
from gradstore_pipelines.graph import build_graph, estimate_graph, plan_of
from gradstore_pipelines.graph_settings import GraphSettings
from gradstore_pipelines.settings import SettingsError
from gradstore_pipelines.stage import ALL_CHECKPOINTS, Unit
from gradstore_pipelines.stages.graph import GraphStage

N = 300
Array = np.ndarray[Any, Any]
Kind = Literal["euclidean", "cosine"]


def points(n: int = N, d: int = 24, seed: int = 0) -> Array:
    """[checkpoint, example, d] in clusters around six directions."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((6, d))
    return (centres[random.integers(0, 6, n)] + 0.5 * random.standard_normal((2, n, d))).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_of(tmp_path / "store", points(), shard_rows=64)


def settings(store: Store, **changes: Any) -> GraphSettings:
    return GraphSettings(store=store.folder, **({"k": 7} | changes))


def stored_units(store: Store) -> Array:
    return np.stack([store.unit_sketches(t, 0, store.n_examples).astype(float) for t in range(store.n_checkpoints)])


def distances(vectors: Array, kind: Kind) -> Array:
    """[example, example] over all checkpoints, infinite to itself."""
    each = np.stack([cdist(v, v, kind) for v in vectors.astype(float)])
    found = each.mean(axis=0) if kind == "cosine" else np.sqrt(np.square(each).mean(axis=0))
    np.fill_diagonal(found, np.inf)
    return np.asarray(found)


def content(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def test_exact_neighbours_of_gradients_are_those_of_the_mean_cosine(store: Store) -> None:
    graph = build_graph(settings(store)).graph
    truth = distances(stored_units(store), "cosine")
    indices, found = graph.rows(0, N)
    np.testing.assert_array_equal(indices, np.argsort(truth, axis=1)[:, :7])
    np.testing.assert_allclose(found, np.sort(truth, axis=1)[:, :7], rtol=1e-6, atol=1e-7)
    assert (graph.recall, graph.card.compared) == (1.0, 1.0)


@pytest.mark.parametrize(("metric", "kind"), [("l2", "euclidean"), ("cosine", "cosine")])
def test_exact_neighbours_of_latents_far_from_the_origin_are_exact(tmp_path: Path, metric: str, kind: Kind) -> None:
    latents = points() * np.float32(1e-2) + np.float32(1000)
    store = store_of(tmp_path / "store", points(), latents=latents, shard_rows=64)
    graph = build_graph(settings(store, space="latent", metric=metric, checkpoint=(-1,))).graph
    truth = distances(latents[1:], kind)
    indices, found = graph.rows(0, N)
    np.testing.assert_allclose(np.take_along_axis(truth, indices, axis=1), np.sort(truth, axis=1)[:, :7], atol=2.0**-46)
    np.testing.assert_allclose(found, np.sort(truth, axis=1)[:, :7], rtol=1e-6, atol=2.0**-46)


def test_duplicates_stand_in_store_order_and_nothing_finds_itself(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", np.tile(points(40), (1, 4, 1)), shard_rows=64)
    indices, found = build_graph(settings(store, k=3)).graph.rows(0, 160)
    copies = np.arange(160) % 40
    expected = [[row for row in range(copy, 160, 40) if row != own] for own, copy in enumerate(copies)]
    np.testing.assert_array_equal(indices, expected)
    assert (found == 0).all()


def test_examples_without_a_gradient_are_at_distance_one_of_all(tmp_path: Path) -> None:
    gradients = points()
    gradients[:, 10:60] = 0
    store = store_of(tmp_path / "store", gradients, shard_rows=64)
    indices, found = build_graph(settings(store)).graph.rows_at([12])
    assert (found == 1).all()
    np.testing.assert_array_equal(indices, [[0, 1, 2, 3, 4, 5, 6]])


@pytest.mark.parametrize("method", ["exact", "cells"])
def test_shards_change_no_neighbour(tmp_path: Path, method: str) -> None:
    found = []
    for rows in (64, 1000):
        store = store_of(tmp_path / str(rows), points(), shard_rows=rows)
        found.append(build_graph(settings(store, method=method)).graph.rows(0, N))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize("space", ["gradient", "latent"])
def test_cells_hold_the_share_that_is_asked_for_and_say_what_they_hold(tmp_path: Path, space: str) -> None:
    store = store_of(tmp_path / "store", points(2000), shard_rows=512)
    kind: Kind = "cosine" if space == "gradient" else "euclidean"
    truth = distances(stored_units(store) if space == "gradient" else points(2000), kind)
    result = build_graph(settings(store, space=space, method="cells", recall=0.9))
    indices, found = result.graph.rows(0, 2000)
    held = np.take_along_axis(truth, indices, axis=1)
    np.testing.assert_allclose(found, held, rtol=1e-5, atol=1e-7)
    recall = (held <= np.sort(truth, axis=1)[:, 6:7]).mean()
    assert recall >= 0.9 - 3 * np.sqrt(0.9 * 0.1 / (256 * 7 / 4))  # neighbours of one row are not independent
    assert result.graph.recall == pytest.approx(recall, abs=0.04)
    assert 0 < result.graph.card.compared < 1
    assert not (result.folder / "cells").exists()


def test_all_points_in_one_place_have_cells_too(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", np.ones((1, 50, 4)), shard_rows=16)
    graph = build_graph(settings(store, space="latent", method="cells", k=3)).graph
    assert (graph.rows(0, 50)[1] == 0).all()


def test_an_interrupted_run_is_continued_to_the_same_bytes(tmp_path: Path, store: Store) -> None:
    whole = store_of(tmp_path / "whole", points(), shard_rows=64)
    build_graph(settings(whole))
    files, plan = GraphFiles(store, "gradient"), plan_of(settings(store))
    files.begin(plan)
    stage = GraphStage(store.folder, store.parameters, "gradient")
    stage.run_unit(Unit(ALL_CHECKPOINTS, 3))
    with pytest.raises(IndexNotFoundError, match="is not finished: 1 of 5 shards are done"):
        KnnGraph.open(store, "gradient")
    (files.folder / "rows.1.npy").write_bytes(b"killed before its record")
    assert build_graph(settings(store)).shards == 4
    assert content(files.folder) == content(GraphFiles(whole, "gradient").folder)


def test_a_finished_graph_is_found_finished(store: Store) -> None:
    first = build_graph(settings(store))
    before = content(first.folder)
    assert build_graph(settings(store)).shards == 0
    assert content(first.folder) == before


def test_two_workers_write_the_same_bytes_as_none(tmp_path: Path, store: Store) -> None:
    other = store_of(tmp_path / "other", points(), shard_rows=64)
    folders = [build_graph(settings(s, workers=w)).folder for s, w in ((store, 0), (other, 2))]
    assert content(folders[0]) == content(folders[1])


def test_a_lost_shard_is_found_again(store: Store) -> None:
    folder = build_graph(settings(store)).folder
    before = content(folder)
    (folder / "rows.2.npy").unlink()
    assert build_graph(settings(store)).shards == 1
    assert content(folder) == before


def test_a_graph_of_other_rows_is_refused_and_made_anew(tmp_path: Path, store: Store) -> None:
    build_graph(settings(store))
    other = store_of(tmp_path / "other", points(seed=1), shard_rows=64)
    shutil.copytree(store.folder / "graph", other.folder / "graph")
    with pytest.raises(IndexMismatchError, match=r"other rows .* Run: gradstore graph .*other --space gradient"):
        KnnGraph.open(other, "gradient")
    assert build_graph(settings(other)).shards == 5
    np.testing.assert_array_equal(
        KnnGraph.open(other, "gradient").rows(0, N)[0],
        np.argsort(distances(stored_units(other), "cosine"), axis=1)[:, :7],
    )


def test_a_graph_of_other_settings_is_kept_unless_told_otherwise(store: Store) -> None:
    build_graph(settings(store))
    with pytest.raises(StoreMismatchError, match="k=7 instead of 3"):
        build_graph(settings(store, k=3))
    assert build_graph(settings(store, k=3, overwrite=True)).graph.k == 3


def test_a_set_of_parameters_has_a_graph_of_its_own(tmp_path: Path) -> None:
    manifest = manifest_of(parameter_sets=("encoder", "decoder"))
    store = Store.create(tmp_path / "store", manifest, example_batches([f"x{row}" for row in range(11)]))
    arrays = arrays_for(store)
    for checkpoint, shard in store.pending():
        store.write_shard(checkpoint, shard, shard_rows_of(store, checkpoint, shard, *arrays))
    first = build_graph(settings(store, k=2))
    second = build_graph(settings(store, k=2, parameters="decoder"))
    assert (first.folder.name, second.folder.name) == ("gradient", "gradient-1")
    build_graph(settings(store, k=2, space="latent"))
    assert KnnGraph.open(store.of_set("decoder"), "latent").k == 2


def test_an_estimate_writes_nothing(store: Store) -> None:
    before = content(store.folder)
    estimate = estimate_graph(settings(store, method="cells"))
    assert (estimate.graph_bytes, estimate.copy_bytes) == (N * 7 * 12, N * (2 * 2 * (24 + 2) + 4))
    assert content(store.folder) == before


def test_questions_that_make_no_sense_are_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=f"k={N} is more than the {N - 1} others"):
        build_graph(settings(store, k=N))
    with pytest.raises(QueryError, match="Gradients are compared by metric=cosine"):
        build_graph(settings(store, metric="l2"))
    with pytest.raises(SettingsError, match="--k is 0"):
        settings(store, k=0)
    with pytest.raises(IndexNotFoundError, match=r"has no graph of its latents\. Run: gradstore graph"):
        KnnGraph.open(store, "latent")
    with pytest.raises(UnknownExampleError, match=f"rows 0 to {N - 1}, not {N}"):
        build_graph(settings(store)).graph.rows_at([N])
    unfinished = Store.create(tmp_path / "unfinished", manifest_of(), example_batches([f"x{row}" for row in range(11)]))
    with pytest.raises(StoreIncompleteError):
        build_graph(settings(unfinished, k=2))
