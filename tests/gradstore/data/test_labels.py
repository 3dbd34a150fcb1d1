"""Labels in files: values become class numbers in sorted order, or are refused with the value that is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradstore.data.labels import encode_labels, read_labels
from gradstore.errors import SourceError, SourceNotFoundError


@given(st.lists(st.integers(0, 30), min_size=1))
def test_the_name_of_its_class_is_the_label(values: list[int]) -> None:
    labels = encode_labels(np.array(values), "y")
    assert [int(labels.names[code]) for code in labels.codes] == values
    assert [int(name) for name in labels.names] == sorted(set(values))


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (np.array([True, False]), ["0", "1"]),
        (np.array([2.0, 0.0]), ["0", "2"]),
        (np.array([b"cat", b"ant"]), ["ant", "cat"]),
        (np.array([7], dtype=np.uint64), ["7"]),
    ],
)
def test_labels_may_be_any_whole_numbers_or_strings(values: np.ndarray, names: list[str]) -> None:
    assert encode_labels(values, "y").names == names


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.array([0, -1]), "hold -1"),
        (np.array([1.0, 0.5]), "hold 0.5 in row 1"),
        (np.array([np.nan, 1.0]), "hold nan in row 0"),
        (np.array([1.0, np.inf]), "hold inf in row 1"),
        (np.eye(3), r"shape \[3, 3\].*argmax"),
        (np.array([1j]), "are complex128"),
    ],
)
def test_values_that_name_no_class_are_refused(values: np.ndarray, found: str) -> None:
    with pytest.raises(SourceError, match=found):
        encode_labels(values, "y")


@pytest.mark.parametrize(
    ("name", "text", "names", "codes"),
    [
        ("y.txt", "10\n9\n10\n", ["9", "10"], [1, 0, 1]),
        ("y.txt", "red fox\nant, small\nred fox", ["ant, small", "red fox"], [1, 0, 1]),
        ("y.csv", '"b,c"\na\n"b,c"\n\n', ["a", "b,c"], [1, 0, 1]),
        ("y.csv", "1.5\n2\nx\n", ["1.5", "2", "x"], [0, 1, 2]),
    ],
)
def test_text_has_one_label_a_line(tmp_path: Path, name: str, text: str, names: list[str], codes: list[int]) -> None:
    (tmp_path / name).write_text(text)
    labels = read_labels(tmp_path / name, 3)
    assert labels.names == names
    assert labels.read(slice(None)).tolist() == codes


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("y.csv", b"a,b\nc,d\n", "line 1 is 'a,b'"),
        ("y.txt", b"a\n\nb\n", "line 2 is ''"),
        ("y.txt", b"\xff\xfe\n", "not UTF-8"),
        ("y.txt", b"label\n0\n1\n", "3 labels for 2 examples.*header"),
        ("y.txt", b"0\n", "1 labels for 2 examples"),
        ("y.json", b"[0, 1]", "not a label file"),
    ],
)
def test_a_file_without_one_label_an_example_is_refused(tmp_path: Path, name: str, content: bytes, found: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=found):
        read_labels(tmp_path / name, 2)


def test_a_missing_label_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"no labels at .*nowhere\.npy"):
        read_labels(tmp_path / "nowhere.npy", 2)
