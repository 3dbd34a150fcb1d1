from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest

from gradstore.search import rabitq_codes
from gradstore.search.rabitq_codes import add_all


def gaussian(n_rows: int, width: int) -> np.ndarray:
    """Not centred, and with rows that are zero."""
    rows = np.random.default_rng(0).standard_normal((n_rows, width)).astype(np.float32) + np.float32(0.3)
    rows[::7] = 0
    return rows


def trained(rows: np.ndarray) -> Any:
    index = faiss.IndexRaBitQFastScan(rows.shape[1], faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    return index


def filled(rows: np.ndarray, block: int) -> Any:
    index = trained(rows)
    add_all(faiss, index, (rows[start : start + block] for start in range(0, len(rows), block)), len(rows))
    return index


@pytest.mark.parametrize(("n_rows", "width", "block"), [(1, 8, 5), (31, 16, 31), (700, 64, 33), (2000, 1024, 999)])
def test_faiss_finds_and_scores_as_if_it_had_added_the_rows_itself(n_rows: int, width: int, block: int) -> None:
    rows = gaussian(n_rows, width)
    by_faiss, here = trained(rows), filled(rows, block)
    by_faiss.add(rows)
    k = min(n_rows, 50)
    (scores, found), (expected_scores, expected) = here.search(rows[:5], k), by_faiss.search(rows[:5], k)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-4, atol=1e-3)
    assert (found == expected).mean() > 0.9  # rows that are zero tie
    assert here.ntotal == n_rows


def test_this_version_of_faiss_is_understood() -> None:
    rows = gaussian(100, 64)
    assert rabitq_codes._is_understood(faiss, trained(rows), rows[:40])


def test_a_layout_that_is_not_understood_is_left_to_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = gaussian(500, 64)
    expected = filled(rows, 100).search(rows[:5], 50)[0]
    parts = rabitq_codes._parts
    monkeypatch.setattr(
        rabitq_codes, "_parts", lambda faiss, index: (parts(faiss, index)[0] + np.uint8(index.ntotal), np.zeros(1))
    )
    monkeypatch.setattr(rabitq_codes._Writer, "write", lambda *_: None)
    np.testing.assert_allclose(filled(rows, 100).search(rows[:5], 50)[0], expected, rtol=1e-4, atol=1e-3)


def test_copies_of_one_row_are_numbers() -> None:
    rows = np.ones((100, 8), np.float32)
    assert np.isfinite(filled(rows, 64).search(rows[:1], 100)[0]).all()
