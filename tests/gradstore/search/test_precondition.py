"""Against dense float64 inverses, and against leverage."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from jaxtyping import Float64

from gradstore.errors import QueryError, ShapeError
from gradstore.influence.leverage import leverage
from gradstore.search import Normalise, Preconditioner, QuerySketches, exact_search, stored_queries
from gradstore.testing.index_kit import MemoryRows, random_queries, sorted_rows

DAMPING = 0.01


def raw(unit: np.ndarray, norms: np.ndarray) -> Float64[np.ndarray, "checkpoint row d_sketch"]:
    return np.asarray(unit.astype(np.float64) * norms[..., None])


def inverses(rows: MemoryRows, damping: float = DAMPING) -> list[np.ndarray]:
    found = []
    for g in raw(rows.units, rows.exact_norms):
        moment = g.T @ g / len(g)
        found.append(np.linalg.inv(moment + damping * np.trace(moment) / len(moment) * np.eye(len(moment))))
    return found


def scores_of(rows: MemoryRows, queries: QuerySketches, normalise: Normalise) -> np.ndarray:
    g, q = raw(rows.units, rows.exact_norms), raw(queries.unit, queries.norms)
    scores, own, asked = 0.0, 0.0, 0.0
    for t, (eta, inverse) in enumerate(zip(rows.learning_rates, inverses(rows), strict=True)):
        scores = scores + eta * q[t] @ inverse @ g[t].T
        own = own + eta * np.einsum("ed,dk,ek->e", g[t], inverse, g[t])
        asked = asked + eta * np.einsum("qd,dk,qk->q", q[t], inverse, q[t])
    divisor = {"none": 1.0, "relatif": np.sqrt(own), "cosine": np.sqrt(own) * np.sqrt(asked)[:, None]}
    return np.asarray(scores / divisor[normalise])


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("normalise", ["none", "cosine", "relatif"])
def test_scores_are_those_of_the_dense_inverse(normalise: Normalise, largest: bool) -> None:
    rows = MemoryRows.random(300)
    queries, made = random_queries(rows, 4), Preconditioner.fit(rows, damping=DAMPING)
    found = exact_search(rows, queries, 20, largest=largest, normalise=normalise, preconditioner=made)
    truth = scores_of(rows, queries, normalise)
    np.testing.assert_allclose(found.scores, np.take_along_axis(truth, found.indices, 1), rtol=2e-4)
    np.testing.assert_array_equal(found.indices, sorted_rows(truth, largest=largest)[:, :20])


def test_the_score_of_a_row_with_itself_is_its_leverage() -> None:
    rows = replace(MemoryRows.random(200), learning_rates=np.ones(2))
    made, every = Preconditioner.fit(rows, damping=DAMPING), np.arange(200)
    found = exact_search(rows, stored_queries(rows, every), 200, preconditioner=made)
    own = found.scores[found.indices == every[:, None]]
    np.testing.assert_allclose(own, leverage(rows, damping=DAMPING), rtol=1e-4)
    np.testing.assert_allclose(made.example_roots() ** 2, own, rtol=1e-4)


def test_the_cosine_of_a_stored_row_with_itself_is_one() -> None:
    rows = MemoryRows.random(50)
    made, every = Preconditioner.fit(rows), np.arange(50)
    found = exact_search(rows, stored_queries(rows, every), 1, normalise="cosine", preconditioner=made)
    np.testing.assert_array_equal(found.indices[:, 0], every)
    np.testing.assert_allclose(found.scores, 1.0, atol=1e-4)


def test_preconditioned_queries_are_queries_of_raw_influence() -> None:
    rows = MemoryRows.random(100)
    queries, made = random_queries(rows, 3), Preconditioner.fit(rows)
    direct = exact_search(rows, queries, 10, preconditioner=made)
    applied = exact_search(rows, made.apply(queries), 10)
    np.testing.assert_array_equal(direct.indices, applied.indices)


def test_the_mean_over_queries_is_that_of_preconditioned_scores() -> None:
    rows = MemoryRows.random(100)
    queries, made = random_queries(rows, 7), Preconditioner.fit(rows, damping=DAMPING)
    found = exact_search(rows, queries, 100, normalise="cosine", preconditioner=made, reduce="mean")
    truth = scores_of(rows, queries, "cosine").mean(axis=0)
    np.testing.assert_allclose(found.scores[0], truth[found.indices[0]], rtol=1e-3, atol=1e-6)


def test_a_direction_that_all_share_counts_little() -> None:
    """The query is half what all rows have, half what row 7 alone has."""
    units = np.random.default_rng(0).standard_normal((1, 400, 16)) * 0.1
    units[..., 3] = 0
    units[..., 0] += 1.0
    units[0, 7] = np.eye(16)[3]
    rows = MemoryRows(units.astype(np.float16), np.ones((1, 400), np.float32), np.ones(1))
    asked = (np.eye(16)[[0]] + np.eye(16)[[3]])[None]
    queries = QuerySketches.from_sketches(asked * 0.9, np.square(asked).sum(axis=2))
    assert exact_search(rows, queries, 1).indices[0, 0] != 7
    assert exact_search(rows, queries, 1, preconditioner=Preconditioner.fit(rows)).indices[0, 0] == 7


def test_sizes_of_gradients_cancel() -> None:
    rows = MemoryRows.random(80)
    small = replace(rows, exact_norms=rows.exact_norms * np.float32(2.0**-60))
    found = []
    for of in (rows, small):
        queries = stored_queries(of, np.arange(5))
        found.append(exact_search(of, queries, 8, preconditioner=Preconditioner.fit(of)))
    np.testing.assert_array_equal(found[0].indices, found[1].indices)
    np.testing.assert_allclose(found[0].scores, found[1].scores, rtol=1e-5)


def test_a_checkpoint_without_gradients_adds_nothing() -> None:
    rows = MemoryRows.random(40)
    rows.exact_norms[1] = 0
    rows.units[1] = np.nan
    queries = random_queries(rows, 2)
    whole = exact_search(rows, queries, 40, preconditioner=Preconditioner.fit(rows))
    first = exact_search(rows, queries, 40, checkpoints=[0], preconditioner=Preconditioner.fit(rows, checkpoints=[0]))
    np.testing.assert_array_equal(whole.indices, first.indices)
    np.testing.assert_allclose(whole.scores, first.scores, rtol=1e-6)


def test_a_preconditioner_of_other_checkpoints_is_refused() -> None:
    rows = MemoryRows.random(40)
    made, queries = Preconditioner.fit(rows, checkpoints=[1]), random_queries(rows, 1)
    with pytest.raises(QueryError, match=r"made at checkpoints 1; the search asks for 0, 1.*Preconditioner\.fit"):
        exact_search(rows, queries, 1, preconditioner=made)
    with pytest.raises(ShapeError, match=r"The queries have 2 checkpoints .* made at checkpoints 1 "):
        made.apply(queries)
    with pytest.raises(QueryError, match="damping of at least 0"):
        Preconditioner.fit(rows, damping=-1.0)
