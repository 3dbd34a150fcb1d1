from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from gradstore.search import Neighbours, Normalise, QuerySketches, exact_search
from gradstore.search.recall import tune_and_measure, worst
from gradstore.testing.index_kit import MemoryRows


class Forgetful:
    """Finds the exact answer but for some places at its end, as many as its effort leaves; counts what it is asked."""

    def __init__(self, rows: MemoryRows, missed_by_effort: dict[int, float]) -> None:
        self.rows, self.missed_by_effort, self.effort = rows, missed_by_effort, 0
        self.asked: list[tuple[int, int]] = []

    def search(
        self, queries: QuerySketches, k: int, *, largest: bool, normalise: Normalise, exclude: Sequence[int]
    ) -> Neighbours:
        self.asked.append((self.effort, k))
        found = exact_search(self.rows, queries, k, largest=largest, normalise=normalise, exclude=exclude)
        n_missed = round(self.missed_by_effort[self.effort] * k)
        found.scores[:, k - n_missed :] = -np.inf if largest else np.inf
        return found


def test_recall_is_the_share_found_and_the_smallest_sufficient_effort_is_chosen() -> None:
    index = Forgetful(MemoryRows.random(400), {1: 0.5, 2: 0.2, 4: 0.0, 8: 0.0})
    recall = tune_and_measure(index, index.rows, "none")
    assert index.effort == 4
    assert set(recall.values()) == {1.0}
    assert 8 not in {effort for effort, _ in index.asked}


def test_an_index_that_never_finds_enough_says_so() -> None:
    index = Forgetful(MemoryRows.random(400), dict.fromkeys((1, 2, 4, 8), 0.3))
    recall = tune_and_measure(index, index.rows, "cosine")
    assert index.effort == 8
    expected = {f"{end}@{k}": 0.7 for end in ("proponents", "opponents") for k in (10, 100)}
    assert recall == pytest.approx(expected)
    assert worst(recall) == pytest.approx(0.7)


@pytest.mark.parametrize(("n_examples", "depths"), [(2, {1}), (11, {10}), (60, {10, 59})])
def test_small_stores_are_measured_as_deep_as_they_go(n_examples: int, depths: set[int]) -> None:
    index = Forgetful(MemoryRows.random(n_examples), {1: 0.0})
    recall = tune_and_measure(index, index.rows, "none")
    assert {int(name.split("@")[1]) for name in recall} == depths


def test_a_store_of_one_example_has_nothing_to_measure() -> None:
    index = Forgetful(MemoryRows.random(1), {})
    assert tune_and_measure(index, index.rows, "none") == {}


def test_copies_that_tie_for_the_last_place_count_as_found() -> None:
    base = MemoryRows.random(1)
    rows = MemoryRows(np.tile(base.units, (1, 300, 1)), np.tile(base.exact_norms, (1, 300)), base.learning_rates)

    class FromTheEnd(Forgetful):
        def search(self, queries: QuerySketches, k: int, **options: Any) -> Neighbours:
            found = super().search(queries, 299, **options)
            return Neighbours(found.indices[:, ::-1][:, :k], found.scores[:, ::-1][:, :k])

    assert set(tune_and_measure(FromTheEnd(rows, {1: 0.0}), rows, "none").values()) == {1.0}
