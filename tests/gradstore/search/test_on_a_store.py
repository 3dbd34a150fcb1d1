"""The searches on a store on disk give what they give on arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gradstore.errors import IndexMismatchError
from gradstore.influence.tracin import tracin_influence
from gradstore.search import (
    ExactIndex,
    FaissFlat,
    QuerySketches,
    exact_both_ends,
    knn_distance,
    nearest_latents,
    stored_queries,
    unit_blocks,
    unit_reference,
)
from gradstore.store import Store
from gradstore.testing.store_kit import store_of

GRADIENTS = np.random.default_rng(0).standard_normal((2, 50, 8)) * np.geomspace(1e-5, 1e5, 50)[:, None]
RATES = np.array([0.5, 0.25])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_of(tmp_path / "store", GRADIENTS, learning_rates=RATES.tolist(), shard_rows=16)


def test_both_ends_are_those_of_the_influence_matrix(store: Store) -> None:
    asked = np.random.default_rng(1).standard_normal((2, 4, 8))
    queries = QuerySketches.from_sketches(asked, np.square(asked).sum(axis=2))
    truth = tracin_influence(asked, GRADIENTS, RATES)
    proponents, opponents = exact_both_ends(store, queries, 5)
    np.testing.assert_array_equal(proponents.indices, np.argsort(-truth, axis=1)[:, :5])
    np.testing.assert_array_equal(opponents.indices, np.argsort(truth, axis=1)[:, :5])
    np.testing.assert_allclose(proponents.scores, np.sort(truth, axis=1)[:, ::-1][:, :5], rtol=1e-2)


@pytest.mark.parametrize("kind", [ExactIndex, FaissFlat])
def test_an_index_of_a_store_is_refused_once_the_store_has_other_rows(
    store: Store, tmp_path: Path, kind: type[ExactIndex | FaissFlat]
) -> None:
    kind.build(store, "cosine").save(store.folder / "indexes" / "index")
    queries = stored_queries(store, np.arange(3))
    found = kind.load(store.folder / "indexes" / "index", store).search(queries, 1)
    np.testing.assert_array_equal(found.indices[:, 0], np.arange(3))
    other = store_of(tmp_path / "other", -GRADIENTS, learning_rates=RATES.tolist(), shard_rows=16)
    with pytest.raises(IndexMismatchError, match=r"Run: gradstore index .*other"):
        kind.load(store.folder / "indexes" / "index", other)


def test_latent_neighbours_and_reference_distances(store: Store) -> None:
    rows = np.array([40, 2])
    found = nearest_latents(store, store.latent_rows(1, rows), 3, exclude=rows.tolist())
    squares = np.square(GRADIENTS[1][rows][:, None] - GRADIENTS[1]).sum(axis=2)
    np.testing.assert_array_equal(found.indices, np.argsort(squares, axis=1)[:, 1:4])
    chosen = np.arange(0, 50, 7)
    distances = knn_distance(unit_blocks(store), unit_reference(store, chosen), 2, chosen, metric="cosine")
    assert distances.shape == (50,)
    assert ((distances > 0) & (distances < 2)).all()
