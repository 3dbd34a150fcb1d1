"""What every ExampleSource must do. Subclass it, say how to make one, and inherit the tests:

class TestMySource(SourceContract):
    def make(self, folder: Path) -> ExampleSource: ...
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np

from gradstore.data import reopen
from gradstore.data.source import ExampleSource


class SourceContract(ABC):
    """Tests that hold for any source, of any format."""

    @abstractmethod
    def make(self, folder: Path) -> ExampleSource:
        """A source of at least four examples that differ, in files under `folder`; each call makes the same one."""

    def test_is_an_example_source(self, tmp_path: Path) -> None:
        assert isinstance(self.make(tmp_path), ExampleSource)

    def test_rows_have_the_declared_shape_and_dtype(self, tmp_path: Path) -> None:
        source = self.make(tmp_path)
        rows = source.rows(slice(1, 3))
        assert rows.shape == (2, *source.example_shape)
        assert rows.dtype == source.dtype
        assert source.dtype.name in ("uint8", "float32", "int64")

    def test_a_slice_equals_its_row_numbers(self, tmp_path: Path) -> None:
        source = self.make(tmp_path)
        for piece in (slice(1, 4), slice(None), slice(None, None, 2), slice(None, None, -1)):
            _assert_same(source, piece, source, np.arange(len(source))[piece])

    def test_rows_come_in_the_order_asked_for(self, tmp_path: Path) -> None:
        source = self.make(tmp_path)
        asked = np.array([3, 0, 2, 0])
        single = [source.rows(np.array([row]))[0] for row in asked]
        np.testing.assert_array_equal(source.rows(asked), np.stack(single))
        assert source.ids(asked) == [source.ids(slice(None))[row] for row in asked]

    def test_no_rows_are_rows_too(self, tmp_path: Path) -> None:
        source = self.make(tmp_path)
        for nothing in (slice(2, 2), np.empty(0, dtype=np.int64)):
            assert source.rows(nothing).shape == (0, *source.example_shape)
            assert source.ids(nothing) == []

    def test_a_slice_ends_with_the_source(self, tmp_path: Path) -> None:
        source = self.make(tmp_path)
        assert len(source.rows(slice(len(source) - 1, len(source) + 9))) == 1

    def test_row_numbers_outside_are_index_errors(self, tmp_path: Path) -> None:
        import pytest

        source = self.make(tmp_path)
        for row in (len(source), -1):
            for read in (source.rows, source.ids):
                with pytest.raises(IndexError, match=str(row)):
                    read(np.array([0, row]))

    def test_ids_are_unique_strings(self, tmp_path: Path) -> None:
        source = self.make(tmp_path)
        ids = source.ids(slice(None))
        assert len(set(ids)) == len(source) == len(ids)
        assert all(isinstance(name, str) and name for name in ids)

    def test_labels_number_the_named_classes(self, tmp_path: Path) -> None:
        source = self.make(tmp_path)
        labels, names = source.labels(slice(None)), source.label_names
        assert (labels is None) == (names is None)
        if labels is not None and names is not None:
            assert labels.shape == (len(source),)
            assert labels.dtype == np.int64
            assert set(labels.tolist()) == set(range(len(names)))

    def test_paths_lead_to_files(self, tmp_path: Path) -> None:
        source = self.make(tmp_path)
        paths = source.paths(slice(None))
        assert paths is None or (len(paths) == len(source) and all(Path(path).is_file() for path in paths))

    def test_rows_given_out_are_the_callers_own(self, tmp_path: Path) -> None:
        source = self.make(tmp_path)
        before = source.rows(slice(None)).copy()
        for index in (slice(None), np.array([2, 0])):
            source.rows(index)[...] = 0
        np.testing.assert_array_equal(source.rows(slice(None)), before)

    def test_reopening_its_description_gives_the_same_source(self, tmp_path: Path) -> None:
        source = self.make(tmp_path)
        again = reopen(json.loads(json.dumps(source.describe())))
        assert (len(again), again.example_shape, again.dtype) == (len(source), source.example_shape, source.dtype)
        assert again.label_names == source.label_names
        assert (again.describe(), again.stamp()) == (source.describe(), source.stamp())
        _assert_same(again, slice(None), source, slice(None))

    def test_the_stamp_changes_when_a_file_is_touched(self, tmp_path: Path) -> None:
        source = self.make(tmp_path)
        files = [file for file in sorted(tmp_path.rglob("*")) if file.is_file()]
        stamps = [source.stamp(), source.stamp()]
        for file in files:
            os.utime(file, ns=(0, file.stat().st_mtime_ns + 1_000_000_000))
            stamps.append(source.stamp())
        assert files
        assert len(set(stamps)) == len(files) + 1

    def test_notes_are_sentences(self, tmp_path: Path) -> None:
        assert all(note.endswith(".") for note in self.make(tmp_path).notes())


def _assert_same(
    left: ExampleSource, left_index: slice | np.ndarray, right: ExampleSource, right_index: slice | np.ndarray
) -> None:
    np.testing.assert_array_equal(left.rows(left_index), right.rows(right_index))
    assert left.ids(left_index) == right.ids(right_index)
    assert left.paths(left_index) == right.paths(right_index)
    np.testing.assert_array_equal(_listed(left, left_index), _listed(right, right_index))


def _listed(source: ExampleSource, index: slice | np.ndarray) -> list[int]:
    labels = source.labels(index)
    return [] if labels is None else labels.tolist()
