"""IDX pairs, plain and gzipped: labels found by name, damaged files reported."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from gradstore.data import open_source, reopen
from gradstore.data.source import ExampleSource
from gradstore.errors import CorruptExampleError, SourceError
from gradstore.testing.source_kit import SourceContract

X = np.random.default_rng(0).integers(0, 256, (7, 4, 5), dtype=np.uint8)
Y = np.array([0, 2, 1, 0, 2, 1, 0], dtype=np.uint8)


def idx(array: np.ndarray, code: int = 0x08) -> bytes:
    head = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


def pair(folder: Path, gzipped: bool = False) -> Path:
    for name, array in (("t-images-idx3-ubyte", X), ("t-labels-idx1-ubyte", Y)):
        content = gzip.compress(idx(array), mtime=0) if gzipped else idx(array)
        path = folder / (name + ".gz" * gzipped)
        if not path.exists():
            path.write_bytes(content)
    return folder / ("t-images-idx3-ubyte" + ".gz" * gzipped)


class TestPlain(SourceContract):
    def make(self, folder: Path) -> ExampleSource:
        return open_source(pair(folder))


class TestGzipped(SourceContract):
    def make(self, folder: Path) -> ExampleSource:
        return open_source(pair(folder, gzipped=True))


@pytest.mark.parametrize("gzipped", [False, True])
def test_a_pair_gives_the_images_and_the_labels_beside_them(tmp_path: Path, gzipped: bool) -> None:
    source = open_source(pair(tmp_path, gzipped))
    np.testing.assert_array_equal(source.rows(slice(None))[:, 0], X)
    np.testing.assert_array_equal(source.rows(np.array([6, 1]))[:, 0], X[[6, 1]])
    np.testing.assert_array_equal(source.labels(slice(None)), Y)
    assert source.notes() == [f"Labels are read from 't-labels-idx1-ubyte{'.gz' * gzipped}' beside it."]


def test_labels_may_be_given_by_name(tmp_path: Path) -> None:
    images = pair(tmp_path)
    (tmp_path / "other.gz").write_bytes(gzip.compress(idx(np.array([5, 9, 9, 9, 9, 9, 9], dtype=np.uint8))))
    assert open_source(images, labels=tmp_path / "other.gz").label_names == ["5", "9"]


def test_images_without_a_label_file_have_no_labels(tmp_path: Path) -> None:
    images = pair(tmp_path)
    (tmp_path / "t-labels-idx1-ubyte").unlink()
    assert open_source(images).labels(slice(None)) is None


def test_a_reopened_source_does_not_pick_up_labels_that_came_later(tmp_path: Path) -> None:
    (tmp_path / "only-images-idx3-ubyte").write_bytes(idx(X))
    source = open_source(tmp_path / "only-images-idx3-ubyte")
    (tmp_path / "only-labels-idx1-ubyte").write_bytes(idx(Y))
    assert reopen(source.describe()).label_names is None


@pytest.mark.parametrize(("code", "dtype"), [(0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4"), (0x0E, "f8")])
def test_every_value_type_is_read(tmp_path: Path, code: int, dtype: str) -> None:
    array = np.array([[1, -2], [3, 4]], dtype=dtype)
    (tmp_path / "x.idx2").write_bytes(idx(array, code))
    np.testing.assert_array_equal(open_source(tmp_path / "x.idx2").rows(slice(None)), array)


def test_the_label_file_given_as_examples_is_refused(tmp_path: Path) -> None:
    pair(tmp_path)
    with pytest.raises(SourceError, match=r"shape \[7\].*belong to --labels"):
        open_source(tmp_path / "t-labels-idx1-ubyte")


def test_a_wrong_magic_number_is_shown(tmp_path: Path) -> None:
    (tmp_path / "a-images-idx3-ubyte").write_bytes(b"\x89PNG" + bytes(40))
    with pytest.raises(SourceError, match=r"starts with b'\\x89PNG'"):
        open_source(tmp_path / "a-images-idx3-ubyte")


@pytest.mark.parametrize("length", [10, 60])
def test_a_file_cut_short_is_corrupt(tmp_path: Path, length: int) -> None:
    (tmp_path / "a-images-idx3-ubyte").write_bytes(idx(X)[:length])
    with pytest.raises(CorruptExampleError, match=r"ends within its header|is cut short: it has 60 bytes"):
        open_source(tmp_path / "a-images-idx3-ubyte")


def test_a_gzip_file_cut_short_is_corrupt(tmp_path: Path) -> None:
    images = pair(tmp_path, gzipped=True)
    images.write_bytes(images.read_bytes()[:-20])
    with pytest.raises(CorruptExampleError, match="cut short or damaged"):
        open_source(images)


def test_a_full_temporary_folder_says_how_to_use_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gradstore.data.spool.shutil.copyfileobj", full)
    with pytest.raises(SourceError, match=r"No space left on device.*set TMPDIR"):
        open_source(pair(tmp_path, gzipped=True))
