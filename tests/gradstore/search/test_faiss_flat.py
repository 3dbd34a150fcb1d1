from __future__ import annotations

import sys
from pathlib import Path

import faiss
import numpy as np
import pytest

from gradstore.errors import IndexFileError, IndexNotFoundError, QueryError
from gradstore.search import FaissFlat, exact_search
from gradstore.search.index import card_path
from gradstore.testing.index_kit import MemoryRows, random_queries


@pytest.fixture
def rows() -> MemoryRows:
    return MemoryRows.random(200)


@pytest.fixture
def saved(rows: MemoryRows, tmp_path: Path) -> Path:
    FaissFlat.build(rows).save(tmp_path / "index")
    return tmp_path / "index"


def test_recall_against_the_exact_search() -> None:
    rows = MemoryRows.random(3000, d_sketch=64)
    queries = random_queries(rows, 50)
    found = FaissFlat.build(rows).search(queries, 10).indices
    truth = exact_search(rows, queries, 10).indices
    assert np.mean([len(np.intersect1d(a, b)) / 10 for a, b in zip(found, truth, strict=True)]) >= 0.99


def test_one_normalised_index_serves_cosine_and_relatif(rows: MemoryRows) -> None:
    queries = random_queries(rows, 4)
    cosine, relatif = FaissFlat.build(rows, "cosine"), FaissFlat.build(rows, "relatif")
    np.testing.assert_array_equal(
        cosine.search(queries, 5, normalise="relatif").scores, relatif.search(queries, 5).scores
    )
    exact = exact_search(rows, queries, 5, normalise="relatif")
    np.testing.assert_allclose(relatif.search(queries, 5).scores, exact.scores, rtol=2**-8)


def test_a_raw_index_does_not_answer_normalised_questions(rows: MemoryRows) -> None:
    with pytest.raises(QueryError, match="Run: gradstore index memory --normalise cosine"):
        FaissFlat.build(rows).search(random_queries(rows, 1), 5, normalise="cosine")


def test_norms_ten_orders_of_magnitude_apart_neither_overflow_nor_vanish(rows: MemoryRows) -> None:
    rows.exact_norms[:] = np.float32(10) ** np.linspace(-10, 0, 200, dtype=np.float32)
    queries = random_queries(rows, 3)
    found = FaissFlat.build(rows).search(queries, 200)
    assert np.isfinite(found.scores).all()
    assert (found.scores != 0).mean() > 0.9


def test_a_truncated_file_is_refused(rows: MemoryRows, saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(IndexFileError, match=r"It is damaged\. Run: gradstore index memory"):
        FaissFlat.load(saved, rows)


def test_a_file_of_something_else_is_refused(rows: MemoryRows, saved: Path) -> None:
    saved.write_bytes(b"?" * saved.stat().st_size)
    with pytest.raises(IndexFileError, match="FAISS cannot read"):
        FaissFlat.load(saved, rows)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"kind": "faiss-flat"}'])
def test_a_damaged_card_is_refused(rows: MemoryRows, saved: Path, text: str) -> None:
    card_path(saved).write_text(text)
    with pytest.raises(IndexFileError, match="is not an index card"):
        FaissFlat.load(saved, rows)


def test_a_card_of_another_kind_is_refused(rows: MemoryRows, saved: Path) -> None:
    card_path(saved).write_text(card_path(saved).read_text().replace("faiss-flat", "ivf"))
    with pytest.raises(IndexFileError, match="kind 'ivf', version 1; expected 'faiss-flat'"):
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


def test_no_module_of_the_room_imports_faiss_at_its_top() -> None:
    room = [module for name, module in sys.modules.items() if name.startswith("gradstore.search")]
    assert room
    assert not any(hasattr(module, "faiss") for module in room)
