"""Indexes as `gradstore.open` gives them: chosen, kept open, noticed when they are stale."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import gradstore
from gradstore.api import SEARCHED, GradientStore
from gradstore.errors import IndexFileError, IndexMismatchError, StoreIncompleteError
from gradstore.search import auto
from gradstore.search.faiss_index import FaissRaBitQ
from gradstore.testing.approximate_kit import clustered_rows
from gradstore.testing.store_kit import example_batches, manifest_of, store_of


@pytest.fixture(scope="module")
def gradients() -> np.ndarray:
    return clustered_rows(3000).units.astype(np.float32)


@pytest.fixture
def opened(tmp_path: Path, gradients: np.ndarray) -> GradientStore:
    store_of(tmp_path / "store", gradients, shard_rows=1000)
    return gradstore.open(tmp_path / "store")


def test_auto_takes_the_index_of_a_large_store_and_the_answer_says_so(
    opened: GradientStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auto, "_SMALL_BYTES", 0)
    monkeypatch.setattr(auto, "GOOD_ENOUGH", 0.5)
    assert "Run: gradstore index" in str(opened.search("x5").searched)
    opened.build_index("relatif")
    table = opened.proponents("x5", normalise="cosine")
    assert json.loads(table.schema.metadata[SEARCHED.encode()])["index"] == "rabitq"
    exact = opened.proponents("x5", normalise="cosine", index="exact")
    assert set(exact["id"].to_pylist()) & set(table["id"].to_pylist())
    assert json.loads(exact.schema.metadata[SEARCHED.encode()]) == {"index": "exact", "why": "as asked", "recall": None}


def test_an_index_is_opened_once_and_again_when_it_was_replaced(
    opened: GradientStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.build_index()
    first = opened.index()
    assert opened.index() is first
    FaissRaBitQ.build(opened.store).save(opened.index_path())
    assert opened.index() is not first


def test_an_index_of_another_store_is_stale(tmp_path: Path, opened: GradientStore, gradients: np.ndarray) -> None:
    opened.build_index()
    store_of(tmp_path / "other", gradients[:, ::-1], shard_rows=1000)
    other = gradstore.open(tmp_path / "other")
    (tmp_path / "store" / "indexes").rename(tmp_path / "other" / "indexes")
    assert not other.has_index()
    with pytest.raises(IndexMismatchError, match=r"Run: gradstore index .*other --kind rabitq"):
        other.search("x5", index="rabitq")
    other.build_index()
    assert other.has_index()


def test_a_flipped_bit_is_noticed_when_the_index_is_opened(opened: GradientStore) -> None:
    path = opened.build_index(kind="flat")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(IndexFileError, match="does not hold the bytes that were written"):
        gradstore.open(opened.store.folder).search("x5", index="flat")


def test_an_unfinished_store_gets_no_index(tmp_path: Path) -> None:
    from gradstore.store import Store

    store = Store.create(tmp_path / "store", manifest_of(), example_batches([f"x{row}" for row in range(11)]))
    with pytest.raises(StoreIncompleteError):
        GradientStore(store).build_index()
