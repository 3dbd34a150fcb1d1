"""Every option of `proponents` and `opponents`, against float64 sums over the gradients the store was made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradstore.api import COVERAGE, SEARCHED, GradientStore
from gradstore.errors import QueryError, StoreIncompleteError, UnknownExampleError
from gradstore.search import Filter, Preconditioner, SketchRows
from gradstore.testing.store_kit import store_of

N, RATES = 24, (0.5, 0.25, 1.0)
GRADIENTS = np.random.default_rng(3).standard_normal((3, N, 16))
GRADIENTS[:, 9] = GRADIENTS[:, 3]  # a copy
QUERY = 3


@pytest.fixture
def opened(tmp_path: Path) -> GradientStore:
    labels = [row % 3 for row in range(N)]
    return GradientStore(store_of(tmp_path / "store", GRADIENTS, labels=labels, learning_rates=RATES))


def influence(checkpoints: tuple[int, ...] = (0, 1, 2)) -> np.ndarray[Any, Any]:
    return np.asarray(sum(RATES[t] * GRADIENTS[t] @ GRADIENTS[t].T for t in checkpoints))


def best(scores: np.ndarray[Any, Any], allowed: Any = range(N), without: tuple[int, ...] = (QUERY,)) -> list[str]:
    """Ids from the highest score down; of copies the lower row first."""
    rows = [row for row in allowed if row not in without]
    return [f"x{row}" for row in sorted(rows, key=lambda row: (-round(float(scores[row]), 6), row))]


def ids(table: Any) -> list[str]:
    return [str(name) for name in table.column("id").to_pylist()]


def test_both_ends_are_proponents_and_opponents(opened: GradientStore) -> None:
    up, down = opened.both_ends("x3", 7)
    assert ids(up) == ids(opened.proponents("x3", 7)) == best(influence()[QUERY])[:7]
    assert ids(down) == ids(opened.opponents("x3", 7)) == best(-influence()[QUERY])[:7]
    assert up.column("score").to_pylist() == opened.proponents("x3", 7).column("score").to_pylist()


def test_the_mean_over_queries_is_one_answer_without_any_of_them(opened: GradientStore) -> None:
    table = opened.proponents(["x3", "x5", "x6"], 8, reduce="mean")
    mean = influence()[[3, 5, 6]].mean(axis=0)
    assert ids(table) == best(mean, without=(3, 5, 6))[:8]
    assert set(table.column("query").to_pylist()) == {"mean of 3 queries"}
    scores = mean[opened.store.row_of(ids(table))]
    np.testing.assert_allclose(table.column("score").to_numpy(), scores, atol=0.02)  # float16 rows of length 4


def test_labels_and_ids_restrict_what_is_found(opened: GradientStore) -> None:
    of_class, few = range(1, N, 3), [f"x{row}" for row in range(4, 20)]
    scores = influence()[QUERY]
    assert ids(opened.proponents("x3", 8, labels=["1"])) == best(scores, of_class)
    assert ids(opened.proponents("x3", 16, among=few)) == best(scores, range(4, 20))
    both = best(scores, [row for row in of_class if 4 <= row < 20])
    assert ids(opened.proponents("x3", len(both), labels=["1"], among=few)) == both
    as_filter = Filter.of_ids(opened.store, few)
    assert ids(opened.proponents("x3", 16, among=as_filter)) == ids(opened.proponents("x3", 16, among=few))


@pytest.mark.parametrize("checkpoints", [(0,), (2, 0), (-1,)])
def test_chosen_checkpoints_are_summed_over(opened: GradientStore, checkpoints: tuple[int, ...]) -> None:
    found = ids(opened.proponents("x3", N - 1, checkpoints=checkpoints))
    assert found == best(influence(checkpoints)[QUERY])


def test_copies_of_a_query_are_left_out_when_asked(opened: GradientStore) -> None:
    assert ids(opened.proponents("x3", 1)) == ["x9"]
    assert ids(opened.proponents("x3", N - 2, exclude_duplicates=True)) == best(influence()[QUERY], without=(3, 9))
    with_self = ids(opened.proponents("x3", N - 1, exclude_duplicates=True, include_self=True))
    assert with_self == best(influence()[QUERY], without=(9,))


def test_preconditioned_scores_are_those_of_the_inverse_second_moment(opened: GradientStore) -> None:
    scores = np.zeros(N)
    for eta, g in zip(RATES, GRADIENTS, strict=True):
        moment = g.T @ g / N
        damped = moment + 0.1 * np.trace(moment) / len(moment) * np.eye(len(moment))
        scores += eta * g @ np.linalg.solve(damped, g[QUERY])
    table = opened.proponents("x3", N - 1, preconditioned=True, damping=0.1)
    np.testing.assert_allclose(table.column("score").to_numpy(), np.sort(np.delete(scores, QUERY))[::-1], atol=0.01)


def test_a_preconditioner_is_fitted_once_for_each_damping(
    opened: GradientStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted, fit = list[float](), Preconditioner.fit

    def counted(rows: SketchRows, **options: Any) -> Preconditioner:
        fitted.append(options["damping"])
        return fit(rows, **options)

    monkeypatch.setattr(Preconditioner, "fit", counted)
    for damping in (0.1, 0.1, 0.2):
        opened.both_ends("x3", 2, preconditioned=True, damping=damping)
    assert fitted == [0.1, 0.2]


def test_an_answer_says_which_search_it_is_from_and_why(opened: GradientStore) -> None:
    metadata = opened.proponents("x3", 2, labels=["1"], index="rabitq").schema.metadata
    assert json.loads(metadata[SEARCHED.encode()])["why"] == "a search among some of the examples is answered exactly"
    assert json.loads(metadata[COVERAGE.encode()]) == {"n_searched": N, "n_examples": N}


def test_an_unfinished_store_is_answered_from_what_is_done(opened: GradientStore) -> None:
    opened.store.discard(1, 5)  # rows 20 to 23 at checkpoint 1
    unfinished = GradientStore(type(opened.store).open(opened.store.folder))
    table = unfinished.proponents("x3", 19)
    assert ids(table) == best(influence()[QUERY], range(20))
    assert json.loads(table.schema.metadata[COVERAGE.encode()]) == {"n_searched": 20, "n_examples": N}
    assert (unfinished.coverage().n_searched, unfinished.coverage([0]).n_searched) == (20, N)
    assert len(ids(unfinished.proponents("x3", N - 1, checkpoints=[0, 2]))) == N - 1
    assert ids(unfinished.proponents("x3", 4, preconditioned=True, labels=["1"], normalise="cosine"))
    with pytest.raises(StoreIncompleteError, match="20 of 24 examples"):
        unfinished.proponents("x3", 1, require_complete=True)
    with pytest.raises(StoreIncompleteError):
        unfinished.proponents("x22", 1)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"labels": ["9"]}, QueryError, "no label '9'; it has 0, 1, 2"),
        ({"labels": []}, QueryError, "Nothing is left to search"),
        ({"among": []}, QueryError, "Nothing is left to search"),
        ({"among": ["x99"]}, UnknownExampleError, r"no example 'x99'.*Close: 'x9'"),
        ({"labels": ["0"], "among": ["x1"]}, QueryError, "Nothing is left to search"),
        ({"checkpoints": [3]}, QueryError, "checkpoints 0 to 2, not 3"),
        ({"checkpoints": []}, QueryError, "none was named"),
        ({"reduce": "sum"}, QueryError, "reduce='sum' is unknown"),
        ({"normalise": "l2"}, QueryError, "normalise='l2' is unknown"),
        ({"damping": 0.1}, QueryError, "none is asked for"),
        ({"preconditioned": True, "damping": -1.0}, QueryError, "-1"),
        ({"index": "tree"}, QueryError, "no index of kind 'tree'"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(
    opened: GradientStore, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        opened.both_ends("x3", 2, **options)


@pytest.mark.parametrize("k", [0, -1, N])
def test_a_k_that_the_store_cannot_answer_is_refused(opened: GradientStore, k: int) -> None:
    with pytest.raises(QueryError, match=f"k={k} is"):
        opened.both_ends("x3", k)
