"""`.npz` archives: finding the members, reading them in place or unpacked, and their ids."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gradstore.data import open_source
from gradstore.data.source import ExampleSource
from gradstore.errors import CorruptExampleError, SourceError
from gradstore.testing.source_kit import SourceContract

X = np.random.default_rng(0).integers(0, 256, (6, 4, 5), dtype=np.uint8)
Y = np.array(["shoe", "bag", "shoe", "coat", "bag", "bag"])
IDS = np.array([f"item-{row}" for row in range(6)])


def saved(folder: Path, **members: np.ndarray) -> Path:
    np.savez(folder / "data.npz", **members)  # type: ignore[arg-type]
    return folder / "data.npz"


class TestStored(SourceContract):
    def make(self, folder: Path) -> ExampleSource:
        path = folder / "data.npz"
        if not path.exists():
            saved(folder, x=X, y=Y, ids=IDS)
        return open_source(path)


class TestCompressed(SourceContract):
    def make(self, folder: Path) -> ExampleSource:
        path = folder / "data.npz"
        if not path.exists():
            np.savez_compressed(path, x=X, y=Y, ids=IDS)
        return open_source(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_members_are_the_arrays_that_were_saved(tmp_path: Path, save: object) -> None:
    assert callable(save)
    save(tmp_path / "data.npz", other=np.zeros((9, 9)), images=X, targets=Y, ids=IDS.astype("S"))
    source = open_source(tmp_path / "data.npz")
    np.testing.assert_array_equal(source.rows(slice(None))[:, 0], X)
    np.testing.assert_array_equal(source.rows(np.array([5, 2]))[:, 0], X[[5, 2]])
    assert source.label_names == ["bag", "coat", "shoe"]
    np.testing.assert_array_equal(source.labels(slice(3)), [2, 0, 2])
    assert source.ids(slice(2)) == ["item-0", "item-1"]


@pytest.mark.parametrize("name", ["X", "inputs", "arr_0", "pixels"])
def test_examples_are_found_by_name_or_as_the_only_table(tmp_path: Path, name: str) -> None:
    assert len(open_source(saved(tmp_path, y=Y, **{name: X}))) == 6


def test_two_tables_of_unknown_names_are_listed(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"x_train \[6, 4, 5\], x_test \[2, 4, 5\].*np.savez\(path, x=images"):
        open_source(saved(tmp_path, x_train=X, x_test=X[:2]))


def test_equal_ids_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"'item-1' \(rows 1 and 4\)"):
        open_source(saved(tmp_path, x=X, ids=IDS[[0, 1, 2, 3, 1, 5]]))


@pytest.mark.parametrize("ids", [np.arange(6), IDS[:5]])
def test_ids_that_are_not_one_string_an_example_are_refused(tmp_path: Path, ids: np.ndarray) -> None:
    with pytest.raises(SourceError, match=r"expected one string an example, \[6\]"):
        open_source(saved(tmp_path, x=X, ids=ids))


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"data\.npz: y' has 5 labels for 6 examples"):
        open_source(saved(tmp_path, x=X, y=Y[:5]))


def test_members_that_nothing_reads_are_named(tmp_path: Path) -> None:
    source = open_source(saved(tmp_path, x=X, lables=Y, ids=IDS))
    (note,) = source.notes()
    assert note.startswith("Not used of 'data.npz': lables. The examples are x; labels would be one of y, Y,")
    assert source.label_names is None


def test_a_file_of_labels_goes_before_the_member(tmp_path: Path) -> None:
    np.save(tmp_path / "own.npy", np.arange(6) % 2)
    source = open_source(saved(tmp_path, x=X, y=Y), labels=tmp_path / "own.npy")
    assert source.label_names == ["0", "1"]


def test_object_members_are_never_unpickled(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="never unpickles"):
        open_source(saved(tmp_path, x=np.array([[{}]])))


def test_an_archive_cut_short_is_corrupt(tmp_path: Path) -> None:
    path = saved(tmp_path, x=X)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(CorruptExampleError, match=r"not a whole \.npz archive"):
        open_source(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_member_is_corrupt(tmp_path: Path, save: object) -> None:
    path = tmp_path / "data.npz"
    assert callable(save)
    save(path, x=X)
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(CorruptExampleError, match="cut short or damaged"):
        open_source(path)


def test_unpacked_members_are_gone_after_the_process(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "data.npz", x=X)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code = "import sys; from gradstore.data import open_source; print(open_source(sys.argv[1]).rows(slice(1)).sum())"
    command = [sys.executable, "-c", code, str(tmp_path / "data.npz")]
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert int(result.stdout) == X[0].sum()
    assert list(scratch.iterdir()) == []
