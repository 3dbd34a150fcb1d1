from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradstore.data import open_source, reopen
from gradstore.data.joined import JoinedSource, Part, is_numbered, parts_of
from gradstore.data.source import ExampleSource
from gradstore.errors import MissingLabelsError, SourceError
from gradstore.testing.source_kit import SourceContract

ROWS = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)


def npz(path: Path, rows: np.ndarray, labels: list[str] | None, ids: list[str] | None = None) -> ExampleSource:
    arrays: dict[str, Any] = {"examples": rows}
    arrays |= {} if labels is None else {"labels": np.array(labels)}
    np.savez(path, **arrays | ({} if ids is None else {"ids": np.array(ids)}))
    return open_source(path)


class TestJoinedSource(SourceContract):
    def make(self, folder: Path) -> ExampleSource:
        first = npz(folder / "a.npz", ROWS[:5], list("abcab"), list("vwxyz"))
        second = npz(folder / "b.npz", ROWS[5:8], list("cca"))
        return JoinedSource([Part(first), Part(second, prefix="b/"), Part(second, first_number=8, content="c")])


def test_parts_follow_one_another_with_the_classes_of_the_first(tmp_path: Path) -> None:
    joined = TestJoinedSource().make(tmp_path)
    everything = slice(None)
    np.testing.assert_array_equal(joined.rows(everything), np.concatenate([ROWS[:8], ROWS[5:8]]))
    assert joined.ids(everything) == [*"vwxyz", "b/0", "b/1", "b/2", "8", "9", "10"]
    labels = joined.labels(everything)
    assert labels is not None
    assert labels.tolist() == [0, 1, 2, 0, 1, 2, 2, 0, 2, 2, 0]
    assert joined.label_names == ["a", "b", "c"]


def test_what_describes_it_keeps_its_parts(tmp_path: Path) -> None:
    joined = reopen(TestJoinedSource().make(tmp_path).describe())
    choices = [(part.prefix, part.first_number, part.content) for part in parts_of(joined)]
    assert choices == [("", None, None), ("b/", None, None), ("", 8, "c")]


def test_the_stamp_is_that_of_all_parts(tmp_path: Path) -> None:
    before = TestJoinedSource().make(tmp_path)
    stamp = before.stamp()
    npz(tmp_path / "b.npz", ROWS[4:8], list("ccca"))
    assert TestJoinedSource().make(tmp_path).stamp() != stamp


@pytest.mark.parametrize(
    ("rows", "labels", "error", "message"),
    [
        (ROWS[:, :2], list("abcabcabc"), SourceError, "of shape .2.; those of"),
        (ROWS.astype(np.int64), list("abcabcabc"), SourceError, "holds int64 examples"),
        (ROWS, None, MissingLabelsError, "has no labels and"),
        (ROWS, list("abcabcabd"), MissingLabelsError, "has the label 'd'; the classes of .* are a, b, c"),
    ],
)
def test_parts_unlike_the_first_are_refused(
    tmp_path: Path, rows: np.ndarray, labels: list[str] | None, error: type[Exception], message: str
) -> None:
    first, second = npz(tmp_path / "a.npz", ROWS[:3], list("abc")), npz(tmp_path / "b.npz", rows, labels)
    with pytest.raises(error, match=message):
        JoinedSource([Part(first), Part(second)])


def test_labels_count_only_where_the_first_has_some(tmp_path: Path) -> None:
    first, second = npz(tmp_path / "a.npz", ROWS, None), npz(tmp_path / "b.npz", ROWS, list("abcabcabc"))
    assert JoinedSource([Part(first), Part(second, prefix="b")]).labels(slice(None)) is None


def test_ids_that_are_row_numbers_are_known_as_such(tmp_path: Path) -> None:
    assert is_numbered(npz(tmp_path / "a.npz", ROWS, None))
    assert not is_numbered(npz(tmp_path / "b.npz", ROWS, None, list("012345687")))
