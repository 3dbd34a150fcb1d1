"""Search while a build is in progress."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gradstore.errors import QueryError, StoreIncompleteError
from gradstore.influence.tracin import tracin_influence
from gradstore.search import Coverage, ExactIndex, Filter, Preconditioner, Searchable, exact_search, stored_queries
from gradstore.store import Store
from gradstore.testing.store_kit import arrays_for, example_batches, manifest_of, shard_rows_of

RATES = np.array([0.1, 0.2])


def unfinished(path: Path, *units: tuple[int, int]) -> Store:
    """11 examples, 2 checkpoints, shards of 4; these (checkpoint, shard) are done."""
    store = Store.create(path, manifest_of(), example_batches([f"x{row}" for row in range(11)]))
    write(store, *units)
    return store


def write(store: Store, *units: tuple[int, int]) -> None:
    for checkpoint, shard in units:
        store.write_shard(checkpoint, shard, shard_rows_of(store, checkpoint, shard, *arrays_for(store)))


def test_what_is_done_at_every_checkpoint_is_searched(tmp_path: Path) -> None:
    store = unfinished(tmp_path / "store", (0, 0), (0, 1), (0, 2), (1, 0), (1, 2))
    sketches = arrays_for(store)[0].astype(np.float64)
    found = exact_search(store, stored_queries(store, np.array([9])), 7)
    influence = tracin_influence(sketches[:, [9]], sketches, RATES)[0]
    done = np.array([0, 1, 2, 3, 8, 9, 10])
    np.testing.assert_array_equal(found.indices[0], done[np.argsort(-influence[done])])


def test_coverage_says_how_much_that_is(tmp_path: Path) -> None:
    store = unfinished(tmp_path / "store", (0, 0), (0, 1), (0, 2), (1, 0), (1, 2))
    assert Searchable.of(store).coverage == Coverage(7, 11)
    assert Searchable.of(store, [0]).coverage.is_complete
    assert str(ExactIndex.build(store).coverage()) == "7 of 11 examples (63.6 %)"
    assert str(Coverage(999_999, 1_000_000)) == "999999 of 1000000 examples (99.9 %)"


def test_an_unfinished_store_is_refused_where_a_complete_one_is_required(tmp_path: Path) -> None:
    store = unfinished(tmp_path / "store", (0, 0), (1, 0), (1, 1), (1, 2))
    queries = stored_queries(store, np.array([0]))
    with pytest.raises(StoreIncompleteError, match=r"at checkpoints 0, 1 it has 4 of 11 .*same build command"):
        exact_search(store, queries, 1, require_complete=True)
    assert exact_search(store, queries, 11, checkpoints=[1], require_complete=True).indices.shape == (1, 11)


def test_a_store_without_a_finished_shard_is_refused(tmp_path: Path) -> None:
    store = unfinished(tmp_path / "store", (0, 0), (1, 1))
    with pytest.raises(StoreIncompleteError, match="it has 0 of 11 examples"):
        Searchable.of(store)


def test_a_snapshot_stays_as_it_was_while_the_build_goes_on(tmp_path: Path) -> None:
    store = unfinished(tmp_path / "store", (0, 0), (1, 0))
    before, queries = Searchable.of(store), stored_queries(store, np.array([0]))
    write(store, (0, 1), (1, 1))
    assert set(exact_search(before, queries, 4).indices[0]) == {0, 1, 2, 3}
    assert Searchable.of(store).coverage.n_searched == 8


def test_the_same_question_to_the_finished_store_is_answered_from_all(tmp_path: Path) -> None:
    store = unfinished(tmp_path / "store", (0, 0), (1, 0))
    write(store, *list(store.pending()))
    queries = stored_queries(store, np.array([5]))
    assert sorted(exact_search(store, queries, 11, require_complete=True).indices[0]) == list(range(11))


def test_k_beyond_what_is_done_is_refused(tmp_path: Path) -> None:
    store = unfinished(tmp_path / "store", (0, 1), (1, 1))
    queries = stored_queries(store, np.array([5]))
    with pytest.raises(QueryError, match="k=5 is larger than the 4 examples that are done so far"):
        exact_search(store, queries, 5)
    with pytest.raises(QueryError, match="k=4 is larger than the 3 other examples that are done so far"):
        exact_search(store, queries, 4, exclude=[5])
    with pytest.raises(QueryError, match="k=2 is larger than the 1 examples that the list of 2 rows leaves"):
        exact_search(store, queries, 2, filter=Filter.of_rows([4, 0], 11))


def test_a_preconditioner_of_what_is_done_reads_nothing_else(tmp_path: Path) -> None:
    store = unfinished(tmp_path / "store", (0, 0), (0, 1), (1, 0), (1, 1))
    made = Preconditioner.fit(store)
    sketches = arrays_for(store)[0][0, :8].astype(np.float64)
    moment = sketches.T @ sketches / 8
    inverse = np.linalg.inv(moment + 1e-3 * np.trace(moment) / 5 * np.eye(5))
    applied = made.apply(stored_queries(store, np.array([3])))
    np.testing.assert_allclose(applied.unit[0, 0] * applied.norms[0, 0], inverse @ sketches[3], rtol=5e-3)
    assert np.count_nonzero(made.example_roots()) == 8
