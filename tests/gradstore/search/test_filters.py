from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float16

from gradstore.errors import QueryError, ShapeError, UnknownExampleError
from gradstore.search import Filter, exact_both_ends, exact_duplicates, exact_search, stored_queries
from gradstore.search.filters import excluded_lists
from gradstore.store import Store
from gradstore.testing.index_kit import MemoryRows, every_score, random_queries, sorted_rows
from gradstore.testing.store_kit import store_of

GRADIENTS = np.random.default_rng(0).standard_normal((2, 12, 8))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_of(tmp_path / "store", GRADIENTS, labels=[0, 1, 2, None] * 3)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.02, 1), st.integers(1, 60))
def test_a_filtered_search_is_the_whole_list_without_the_rest(seed: int, share: float, block_rows: int) -> None:
    random = np.random.default_rng(seed)
    allowed = random.random(150) < share
    allowed[0] = True
    rows, kept = MemoryRows.random(150), int(allowed.sum())
    queries = random_queries(rows, 3, seed % 1000)
    ends = exact_both_ends(rows, queries, kept, filter=Filter(allowed), block_rows=block_rows)
    for largest, found in zip((True, False), ends, strict=True):
        everything = sorted_rows(every_score(rows, queries), largest=largest)
        np.testing.assert_array_equal(found.indices, [line[allowed[line]] for line in everything])


def test_a_block_without_an_allowed_row_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, starts = MemoryRows.random(300), set()
    read = MemoryRows.unit_sketches

    def recorded(self: MemoryRows, checkpoint: int, start: int, stop: int) -> Float16[np.ndarray, "row d_sketch"]:
        starts.add(start)
        return read(self, checkpoint, start, stop)

    monkeypatch.setattr(MemoryRows, "unit_sketches", recorded)
    exact_search(rows, random_queries(rows, 1), 2, filter=Filter.of_rows([101, 120], 300), block_rows=100)
    assert starts == {100}


def test_labels_are_named_or_numbered(store: Store) -> None:
    np.testing.assert_array_equal(np.flatnonzero(Filter.of_labels(store, ["1"]).allowed), [1, 5, 9])
    np.testing.assert_array_equal(np.flatnonzero(Filter.of_labels(store, [0, 2]).allowed), [0, 2, 4, 6, 8, 10])
    with pytest.raises(QueryError, match="The store has no label 'cat'; it has 0, 1, 2"):
        Filter.of_labels(store, ["cat"])


def test_ids_are_looked_up_in_the_store(store: Store) -> None:
    np.testing.assert_array_equal(np.flatnonzero(Filter.of_ids(store, ["x7", "x2"]).allowed), [2, 7])
    with pytest.raises(UnknownExampleError, match="no example 'x99'"):
        Filter.of_ids(store, ["x99"])
    with pytest.raises(UnknownExampleError, match="rows 0 to 11, not 12"):
        Filter.of_rows([12], 12)


def test_filters_combine(store: Store) -> None:
    ones, few = Filter.of_labels(store, ["1"]), Filter.of_rows(range(6), 12)
    np.testing.assert_array_equal(np.flatnonzero((ones & few).allowed), [1, 5])
    np.testing.assert_array_equal(np.flatnonzero((ones | few).allowed), [0, 1, 2, 3, 4, 5, 9])
    np.testing.assert_array_equal(np.flatnonzero((~few & ones).allowed), [9])


def test_a_filter_that_lets_nothing_through_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="the label 1 and the list of 1 rows lets none of 12 examples through"):
        Filter.of_labels(store, ["1"]) & Filter.of_rows([0], 12)
    with pytest.raises(QueryError, match="Nothing is left to search"):
        Filter.of_rows([], 12)
    with pytest.raises(QueryError, match="The store has no labels to filter by"):
        Filter.of_labels(store_of(tmp_path / "plain", GRADIENTS), ["1"])


def test_k_beyond_what_the_filter_leaves_is_refused(store: Store) -> None:
    queries, ones = stored_queries(store, np.array([1])), Filter.of_labels(store, ["1"])
    with pytest.raises(
        QueryError, match="k=4 is larger than the 3 examples that the label 1 leaves; ask for at most 3"
    ):
        exact_search(store, queries, 4, filter=ones)
    with pytest.raises(QueryError, match="k=3 is larger than the 2 other examples that the label 1 leaves"):
        exact_search(store, queries, 3, filter=ones, exclude=[1])
    assert exact_search(store, queries, 3, filter=ones, exclude=[0]).indices.shape == (1, 3)
    with pytest.raises(QueryError, match="The filter is for 5 examples; the store has 12"):
        exact_search(store, queries, 1, filter=Filter.of_rows([0], 5))


def test_duplicates_agree_in_every_bit_at_every_checkpoint() -> None:
    base = MemoryRows.random(5)
    order = np.array([0, 1, 2, 0, 3, 0, 4, 2])
    rows = replace(base, units=base.units[:, order], exact_norms=base.exact_norms[:, order])
    found = exact_duplicates(rows, stored_queries(rows, np.array([3, 2, 4])))
    assert [line.tolist() for line in found] == [[0, 3, 5], [2, 7], [4]]
    rows.units[1, 5, 0] = np.nextafter(rows.units[1, 5, 0], np.float16(1))
    rows.exact_norms[0, 7] *= np.float32(1.001)
    found = exact_duplicates(rows, stored_queries(rows, np.array([3, 2])))
    assert [line.tolist() for line in found] == [[0, 3], [2]]


def test_a_row_without_a_gradient_is_nobodys_copy() -> None:
    rows = MemoryRows.random(6)
    rows.exact_norms[:, 2:4] = 0
    rows.units[:, 2:4] = 0
    assert [len(line) for line in exact_duplicates(rows, stored_queries(rows, np.array([2, 5])))] == [0, 1]


def test_excluding_duplicates_leaves_the_nearest_that_differ(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", GRADIENTS[:, [0, 1, 0, 2, 3, 0]])
    queries = stored_queries(store, np.array([2]))
    copies = exact_duplicates(store, queries)
    assert copies[0].tolist() == [0, 2, 5]
    found = exact_search(store, queries, 3, normalise="cosine", exclude=copies)
    assert sorted(found.indices[0]) == [1, 3, 4]


def test_exclusions_are_one_entry_a_query_each_row_once() -> None:
    lists = excluded_lists([[3, 1, 3], [], [-1]], 3)
    assert [line.tolist() for line in lists] == [[1, 3], [], []]
    with pytest.raises(ShapeError, match="exclude names 1 rows for 2 queries"):
        excluded_lists([[1]], 2)


def test_an_excluded_row_that_is_not_there_hides_nothing() -> None:
    rows = MemoryRows.random(10)
    queries = random_queries(rows, 2)
    found = exact_search(rows, queries, 10, exclude=[10, 11])  # 10 + 0 would be row 0 of the second query
    np.testing.assert_array_equal(found.indices, exact_search(rows, queries, 10).indices)
