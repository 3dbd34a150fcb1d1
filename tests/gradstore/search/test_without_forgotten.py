"""Searches find what a store without the forgotten examples would: by every way that a search has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gradstore
from gradstore.errors import QueryError
from gradstore.search.graph import GraphFiles, GraphPlan, KnnGraph
from gradstore.testing.store_kit import store_of

N, GONE = 400, range(0, 400, 5)
KEPT = [row for row in range(N) if row not in GONE]
QUERY = "x7"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[gradstore.GradientStore, gradstore.GradientStore]:
    folder, random = tmp_path_factory.mktemp("stores"), np.random.default_rng(0)
    gradients, labels = random.normal(size=(2, N, 8)), [row % 4 for row in range(N)]
    whole = store_of(folder / "whole", gradients, labels=labels, shard_rows=64)
    names = [f"x{row}" for row in KEPT]
    store_of(folder / "kept", gradients[:, KEPT], labels=[labels[row] for row in KEPT], ids=names, shard_rows=64)
    whole.forget([f"x{row}" for row in GONE])
    return gradstore.open(folder / "whole"), gradstore.open(folder / "kept")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalise": "cosine"},
        {"labels": ["2"]},
        {"among": [f"x{row}" for row in range(30)]},
        {"preconditioned": True, "normalise": "relatif"},
        {"exclude_duplicates": True},
    ],
)
def test_exact_searches(stores: tuple[gradstore.GradientStore, gradstore.GradientStore], options: dict) -> None:  # type: ignore[type-arg]
    found, expected = (opened.proponents(QUERY, 9, **_there(opened, options)) for opened in stores)
    assert found.column("id").to_pylist() == expected.column("id").to_pylist()
    np.testing.assert_allclose(found.column("score").to_numpy(), expected.column("score").to_numpy(), rtol=1e-5)


def _there(opened: gradstore.GradientStore, options: dict) -> dict:  # type: ignore[type-arg]
    """Options that name only examples of this store."""
    if "among" not in options:
        return options
    names = opened.store.ids(0, opened.store.n_examples)
    return {"among": [name for name in options["among"] if name in names]}


@pytest.mark.parametrize("kind", ["flat", "rabitq"])
def test_an_index_of_all_rows_serves_the_kept(
    stores: tuple[gradstore.GradientStore, gradstore.GradientStore], kind: str
) -> None:
    whole, kept = stores
    whole.build_index("none", kind)
    found, expected = whole.proponents(QUERY, 9, index=kind), kept.proponents(QUERY, 9, index="exact")  # type: ignore[arg-type]
    assert not {f"x{row}" for row in GONE} & set(found.column("id").to_pylist())
    assert len(set(found.column("id").to_pylist()) & set(expected.column("id").to_pylist())) >= 8


def test_neighbours_and_credibility(stores: tuple[gradstore.GradientStore, gradstore.GradientStore]) -> None:
    found, expected = (opened.neighbours(QUERY, 9).column("id").to_pylist() for opened in stores)
    assert found == expected
    calibration = [f"x{row}" for row in KEPT[::10]]
    whole, kept = (opened.credibility(QUERY, 9, calibration=calibration).to_pylist() for opened in stores)
    assert whole == kept


def test_a_forgotten_example_may_still_be_asked_about(
    stores: tuple[gradstore.GradientStore, gradstore.GradientStore],
) -> None:
    assert stores[0].proponents("x5", 3).num_rows == 3


def test_more_than_is_kept_cannot_be_found(stores: tuple[gradstore.GradientStore, gradstore.GradientStore]) -> None:
    with pytest.raises(QueryError, match="319 other examples that the list of forgotten examples leaves"):
        stores[0].proponents(QUERY, 320)


def test_a_graph_shows_no_forgotten_neighbour(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s", np.random.default_rng(0).normal(size=(1, 6, 5)), shard_rows=8)
    files, plan = GraphFiles(store, "gradient"), _plan(store.content_fingerprint())
    files.begin(plan)
    files.write(plan, 0, np.array([[1, 2], [2, 0], [1, 0], [4, 5], [5, 3], [4, 3]]), np.full((6, 2), 0.5, np.float32))
    store.forget(["x1", "x5"])
    graph = KnnGraph(files, plan, None)  # type: ignore[arg-type]
    neighbours, distances = graph.rows(0, 6)
    assert neighbours.tolist() == [[2, -1], [2, 0], [0, -1], [4, -1], [3, -1], [4, 3]]
    assert np.isinf(distances[neighbours == -1]).all()
    assert graph.rows_at([0], with_forgotten=True)[0].tolist() == [[1, 2]]


def _plan(fingerprint: str) -> GraphPlan:
    return GraphPlan(
        space="gradient",
        metric="cosine",
        checkpoints=(0,),
        k=2,
        method="exact",
        recall=1.0,
        n_examples=6,
        shard_rows=8,
        fingerprint=fingerprint,
    )
