"""RowFile gives what numpy's own indexing gives, whatever the index, from a plain or a packed file."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradstore.data.row_file import RowFile
from gradstore.data.source import as_indices, as_run
from gradstore.data.spool import Packed

ARRAY = np.random.default_rng(0).normal(size=(11, 3, 2)).astype(">f4")
OFFSET = 5


@pytest.fixture(scope="module", params=["plain", "gzip"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RowFile:
    path: Path = tmp_path_factory.mktemp("rows") / "rows"
    content = bytes(OFFSET) + ARRAY.tobytes()
    path.write_bytes(content if request.param == "plain" else gzip.compress(content))
    return RowFile(path if request.param == "plain" else Packed(path), OFFSET, ARRAY.shape, ARRAY.dtype)


@given(rows=st.lists(st.integers(0, 10)))
def test_row_numbers_select_rows_in_their_order(file: RowFile, rows: list[int]) -> None:
    index = np.array(rows, dtype=np.int64)
    np.testing.assert_array_equal(file.read(index), ARRAY[index])


@given(piece=st.slices(11))
def test_slices_select_rows_as_numpy_does(file: RowFile, piece: slice) -> None:
    np.testing.assert_array_equal(file.read(piece), ARRAY[piece])


@given(start=st.integers(0, 10), length=st.integers(0, 10))
def test_a_run_is_recognised_however_it_is_written(start: int, length: int) -> None:
    numbers = np.arange(start, min(start + length, 11))
    run = as_run(numbers, 11)
    assert run is not None
    assert list(run) == numbers.tolist()
    assert list(run) == list(as_run(slice(start, start + length), 11) or [])


@pytest.mark.parametrize("index", [np.array([True, False]), np.array([0.0, 1.0]), np.array([[0]])])
def test_what_does_not_number_rows_is_an_index_error(index: np.ndarray) -> None:
    with pytest.raises(IndexError, match="vector of integers"):
        as_indices(index, 11)
