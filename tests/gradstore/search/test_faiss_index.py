from __future__ import annotations

import builtins
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from gradstore.errors import IndexFileError, IndexNotFoundError, MissingExtraError, QueryError
from gradstore.search import FaissFlat, FaissRaBitQ, exact_search, stored_queries
from gradstore.search.faiss_index import INDEX_TYPES
from gradstore.search.index import card_path
from gradstore.store.sealed import sealed
from gradstore.testing.approximate_kit import clustered_rows
from gradstore.testing.index_kit import MemoryRows, random_queries


@pytest.fixture
def rows() -> MemoryRows:
    return MemoryRows.random(700)


@pytest.fixture
def saved(rows: MemoryRows, tmp_path: Path) -> Path:
    FaissFlat.build(rows).save(tmp_path / "index")
    return tmp_path / "index"


def test_one_normalised_index_serves_cosine_and_relatif(rows: MemoryRows) -> None:
    queries = random_queries(rows, 4)
    cosine, relatif = FaissFlat.build(rows, "cosine"), FaissFlat.build(rows, "relatif")
    np.testing.assert_array_equal(
        cosine.search(queries, 5, normalise="relatif").scores, relatif.search(queries, 5).scores
    )
    exact = exact_search(rows, queries, 5, normalise="relatif")
    np.testing.assert_array_equal(relatif.search(queries, 5).scores, exact.scores)


def test_a_raw_index_does_not_answer_normalised_questions(rows: MemoryRows) -> None:
    with pytest.raises(QueryError, match="Run: gradstore index memory --kind flat --normalise cosine"):
        FaissFlat.build(rows).search(random_queries(rows, 1), 5, normalise="cosine")


@pytest.mark.parametrize("kind", ["flat", "rabitq", "ivf-sq8", "ivf-pq"])
def test_norms_twenty_orders_of_magnitude_apart_neither_overflow_nor_vanish(kind: str) -> None:
    rows = clustered_rows(3000)
    spread = np.float32(10) ** np.linspace(-10, 10, 3000, dtype=np.float32)
    rows = replace(rows, exact_norms=np.stack([spread, spread]))
    queries = stored_queries(rows, np.array([2990, 5]))
    index = INDEX_TYPES[kind].build(rows)
    index.effort = 1
    best = exact_search(rows, queries, 1)
    np.testing.assert_array_equal(index.search(queries, 10).indices[:, :1], best.indices)


def test_the_index_is_asked_and_not_the_exact_search_in_disguise(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = clustered_rows(3000)
    index = FaissRaBitQ.build(rows)
    index.effort = 1
    monkeypatch.setattr("gradstore.search.faiss_index.exact_search", None)
    assert index.search(random_queries(rows, 2), 10).indices.shape == (2, 10)


def test_too_few_candidates_are_made_up_for_exactly() -> None:
    rows = clustered_rows(3000)
    index = INDEX_TYPES["ivf-sq8"].build(rows)
    index.effort = 1
    index._index.nprobe = 1
    queries = random_queries(rows, 3)
    found = index.search(queries, 700)
    np.testing.assert_array_equal(found.indices, exact_search(rows, queries, 700).indices)


def test_a_truncated_file_is_refused(rows: MemoryRows, saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(IndexFileError, match=r"It is damaged\. Run: gradstore index memory --kind flat"):
        FaissFlat.load(saved, rows)


def test_a_file_that_faiss_does_not_know_is_refused(
    rows: MemoryRows, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved.write_bytes(b"?" * saved.stat().st_size)
    monkeypatch.setattr("gradstore.search.index.IndexCard.check_file", lambda *_: None)
    with pytest.raises(IndexFileError, match="FAISS cannot read"):
        FaissFlat.load(saved, rows)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"kind": "flat"}'])
def test_a_damaged_card_is_refused(rows: MemoryRows, saved: Path, text: str) -> None:
    card_path(saved).write_text(text)
    with pytest.raises(IndexFileError, match="is not an index card"):
        FaissFlat.load(saved, rows)


def test_a_card_of_another_kind_or_an_earlier_version_is_refused(rows: MemoryRows, saved: Path) -> None:
    card = json.loads(card_path(saved).read_text())
    with pytest.raises(IndexFileError, match="kind 'flat', version 3; expected 'rabitq'"):
        FaissRaBitQ.load(saved, rows)
    card_path(saved).write_text(sealed({**card, "version": 1}))
    with pytest.raises(IndexFileError, match="kind 'flat', version 1; expected 'flat', version 3"):
        FaissFlat.load(saved, rows)


def test_a_card_without_its_index_is_refused(rows: MemoryRows, saved: Path) -> None:
    saved.unlink()
    with pytest.raises(IndexNotFoundError, match="only its card is there"):
        FaissFlat.load(saved, rows)


def test_a_full_disk_leaves_the_earlier_index(rows: MemoryRows, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(index: object, path: str) -> None:
        Path(path).write_bytes(b"part")
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(faiss, "write_index", no_space)
    with pytest.raises(IndexFileError, match="No space left on device"):
        FaissFlat.build(rows).save(saved)
    assert sorted(p.name for p in saved.parent.iterdir()) == ["index", "index.json"]
    assert FaissFlat.load(saved, rows).search(random_queries(rows, 1), 200).indices.size == 200


def test_without_faiss_the_command_that_installs_it_is_shown(rows: MemoryRows, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "faiss":
            raise ImportError("No module named 'faiss'")
        return plain(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match="pip install 'faiss-cpu"):
        FaissFlat.build(rows)


def test_no_module_of_the_room_imports_faiss_at_its_top() -> None:
    room = [module for name, module in sys.modules.items() if name.startswith("gradstore.search")]
    assert room
    assert not any(hasattr(module, "faiss") for module in room)
