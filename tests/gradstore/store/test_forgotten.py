from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from gradstore.errors import QueryError, StoreCorruptError, UnknownExampleError
from gradstore.store import Store, verify
from gradstore.store.forgotten import FORGOTTEN
from gradstore.testing.store_kit import store_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_of(tmp_path / "s", np.random.default_rng(0).normal(size=(2, 11, 5)))


def forgotten(store: Store) -> list[int]:
    mask = store.forgotten()
    return [] if mask is None else np.flatnonzero(mask).tolist()


def test_nothing_is_forgotten_at_first(store: Store) -> None:
    assert store.forgotten() is None


def test_forgetting_adds_up_and_says_what_is_new(store: Store) -> None:
    assert [store.forget(["x7", "x2"]), store.forget(["x2", "x9", "x9"]), store.forget(["x7"])] == [2, 1, 0]
    assert forgotten(store) == forgotten(pickle.loads(pickle.dumps(store))) == [2, 7, 9]
    assert pq.read_table(store.folder / FORGOTTEN).to_pydict() == {"row": [2, 7, 9], "id": ["x2", "x7", "x9"]}


def test_rows_of_forgotten_examples_are_still_there(store: Store) -> None:
    before = store.norms(0), store.content_fingerprint()
    store.forget(["x7"])
    np.testing.assert_array_equal(store.norms(0), before[0])
    assert store.content_fingerprint() == before[1]


def test_remembering_some_or_all(store: Store) -> None:
    store.forget(["x7", "x2", "x9"])
    assert store.remember(["x2"]) == 1
    assert forgotten(store) == [7, 9]
    assert store.remember() == 2
    assert (store.forgotten(), store.remember()) == (None, 0)


def test_an_unknown_id_changes_nothing(store: Store) -> None:
    with pytest.raises(UnknownExampleError, match="Close: "):
        store.forget(["x2", "x77"])
    assert store.forgotten() is None


def test_what_is_not_forgotten_cannot_be_remembered(store: Store) -> None:
    store.forget(["x7"])
    with pytest.raises(QueryError, match="1 of these 2 examples are not forgotten: 'x3'"):
        store.remember(["x7", "x3"])
    assert forgotten(store) == [7]


def test_one_example_must_be_left(store: Store) -> None:
    with pytest.raises(QueryError, match="Keep at least one"):
        store.forget([f"x{row}" for row in range(11)])


def test_a_damaged_list_is_refused_and_found(store: Store) -> None:
    store.forget(["x7"])
    file = store.folder / FORGOTTEN
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    with pytest.raises(StoreCorruptError, match="not as it was written"):
        store.forgotten()
    assert verify(store).damaged == (FORGOTTEN,)


def test_the_list_of_another_store_is_found(store: Store, tmp_path: Path) -> None:
    other = store_of(tmp_path / "o", np.ones((1, 11, 5)), ids=[f"y{row}" for row in range(11)])
    other.forget(["y3"])
    (store.folder / FORGOTTEN).write_bytes((other.folder / FORGOTTEN).read_bytes())
    (problem,) = verify(store).problems
    assert "other ids than those of its rows" in problem
