"""`.npy` files: which arrays are examples, as what they are given out, and why others are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gradstore.data import open_source
from gradstore.data.source import ExampleSource
from gradstore.errors import CorruptExampleError, SourceError
from gradstore.testing.source_kit import SourceContract


def saved(folder: Path, array: np.ndarray, name: str = "x.npy") -> Path:
    np.save(folder / name, array)
    return folder / name


def counted(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


class TestVectors(SourceContract):
    def make(self, folder: Path) -> ExampleSource:
        return open_source(saved(folder, np.random.default_rng(0).normal(size=(6, 5))))


class TestColourImagesWithLabels(SourceContract):
    def make(self, folder: Path) -> ExampleSource:
        labels = saved(folder, np.array([3, 1, 4, 1, 4]), "y.npy")
        return open_source(saved(folder, counted(5, 6, 7, 3)), labels=labels)


@pytest.mark.parametrize(
    ("shape", "given"),
    [
        ((4, 9), (9,)),
        ((4, 6, 7), (1, 6, 7)),
        ((4, 6, 7, 3), (3, 6, 7)),
        ((4, 6, 7, 1), (1, 6, 7)),
        ((4, 3, 6, 7), (3, 6, 7)),
        ((4, 3, 6, 4), (3, 6, 4)),
        ((4, 8, 6, 7), (8, 6, 7)),
        ((4, 2, 5, 6, 7), (2, 5, 6, 7)),
    ],
)
def test_shapes_are_given_out_channels_first(tmp_path: Path, shape: tuple[int, ...], given: tuple[int, ...]) -> None:
    source = open_source(saved(tmp_path, counted(*shape)))
    assert source.example_shape == given
    assert source.rows(slice(None)).shape == (4, *given)


def test_channels_last_pixels_keep_their_channel(tmp_path: Path) -> None:
    images = counted(2, 5, 6, 3)
    source = open_source(saved(tmp_path, images))
    np.testing.assert_array_equal(source.rows(slice(None))[:, 2, 4, 5], images[:, 4, 5, 2])
    assert source.notes() == ["Images of [height, width, channels] are read as [3, 5, 6], channels first."]


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        ("uint8", "uint8"),
        ("bool", "float32"),
        ("float16", "float32"),
        (">f4", "float32"),
        ("float64", "float32"),
        ("int8", "int64"),
        (">u2", "int64"),
        ("uint64", "int64"),
    ],
)
def test_values_survive_the_dtype_they_are_given_in(tmp_path: Path, stored: str, given: str) -> None:
    array = counted(3, 4, dtype=stored)
    rows = open_source(saved(tmp_path, array)).rows(slice(None))
    assert rows.dtype == given
    np.testing.assert_array_equal(rows, array.astype(float))


@pytest.mark.parametrize(
    ("array", "advice"),
    [
        (np.zeros((2, 3), dtype=complex), "holds complex128 values"),
        (np.array([["a", "b"]]), "holds <U1 values"),
        (np.array([[{}]]), "never unpickles"),
        (np.zeros((2, 2), dtype=[("a", "f4"), ("b", "f4")]), "has the fields a, b"),
        (np.asfortranarray(counted(3, 4)), "np.ascontiguousarray"),
        (counted(5), r"shape \[5\]; expected one row an example"),
        (np.float32(1), "holds a single value"),
        (counted(0, 4), r"\[0, 4\], which holds no values"),
        (counted(4, 0), r"\[4, 0\], which holds no values"),
    ],
)
def test_an_array_that_is_not_rows_of_numbers_is_refused(tmp_path: Path, array: np.ndarray, advice: str) -> None:
    with pytest.raises(SourceError, match=advice):
        open_source(saved(tmp_path, array))


def test_integers_beyond_int64_are_refused_not_wrapped(tmp_path: Path) -> None:
    source = open_source(saved(tmp_path, np.full((2, 2), 2**63, dtype=np.uint64)))
    with pytest.raises(SourceError, match="9223372036854775808"):
        source.rows(slice(None))


def test_a_file_cut_short_is_corrupt(tmp_path: Path) -> None:
    path = saved(tmp_path, counted(10, 10))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptExampleError, match=r"has 227 bytes and .* needs 228"):
        open_source(path)


def test_a_file_cut_after_it_was_opened_is_corrupt(tmp_path: Path) -> None:
    path = saved(tmp_path, counted(10, 10))
    source = open_source(path)
    path.write_bytes(path.read_bytes()[:150])
    for index in (slice(None), np.array([9, 0])):
        with pytest.raises(CorruptExampleError, match="can no longer be read"):
            source.rows(index)


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"does not start as a \.npy array does"):
        open_source(path)
