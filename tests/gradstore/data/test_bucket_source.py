"""Data in a bucket: the same as on disk, `.npy` by ranges, everything else by a copy that is made once."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gradstore.data import open_source, reopen
from gradstore.data.source import ExampleSource
from gradstore.errors import SourceNotFoundError
from gradstore.store.bucket import Bucket
from gradstore.store.place import place_of
from gradstore.testing.source_kit import SourceContract
from tests.buckets import s3


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3(tmp_path_factory.mktemp("cache")) as url:
        yield url


class BucketContract(SourceContract):
    """Files are made in `folder` and uploaded to a place of its name."""

    @pytest.fixture(autouse=True)
    def _in_bucket(self, bucket: str) -> None:
        self.bucket = bucket

    def upload(self, folder: Path) -> str:
        url = f"{self.bucket}/{folder.name}"
        for file in folder.rglob("*"):
            if file.is_file():
                place_of(url).write(file.relative_to(folder).as_posix(), file.read_bytes())
        return url

    def test_the_stamp_changes_when_a_file_is_touched(self, tmp_path: Path) -> None:
        """By what the bucket calls the version of its content, not by time."""
        source = self.make(tmp_path)
        stamps = [source.stamp(), self.make(tmp_path).stamp()]
        assert stamps[0] == stamps[1]
        place = place_of(f"{self.bucket}/{tmp_path.name}")
        for entry in sorted(place.entries(), key=lambda entry: entry.name):
            place.write(entry.name, place.read(entry.name) + b"\0")
            stamps.append(source.stamp())
        assert len(set(stamps)) == len(stamps) - 1


class TestNpyInABucket(BucketContract):
    def make(self, folder: Path) -> ExampleSource:
        np.save(folder / "x.npy", np.random.default_rng(0).normal(size=(6, 5)))
        np.save(folder / "y.npy", np.array([3, 1, 4, 1, 4, 3]))
        url = self.upload(folder)
        return open_source(f"{url}/x.npy", labels=f"{url}/y.npy")


class TestNpzInABucket(BucketContract):
    def make(self, folder: Path) -> ExampleSource:
        np.savez_compressed(folder / "d.npz", x=np.arange(60).reshape(5, 3, 4), y=np.arange(5) % 2, ids=list("abcde"))
        return open_source(f"{self.upload(folder)}/d.npz")


class TestImagesInABucket(BucketContract):
    def make(self, folder: Path) -> ExampleSource:
        for number in range(5):
            file = folder / "xy"[number % 2] / f"{number}.png"
            file.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((4, 4), 40 * number, np.uint8)).save(file)
        return open_source(self.upload(folder))


def test_rows_of_a_npy_file_are_fetched_and_not_the_file(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, place = np.arange(40_000, dtype=np.float32).reshape(1000, 40), place_of(f"{bucket}/ranges")
    with place.replacing("x.npy") as temporary, temporary.open("wb") as file:
        np.save(file, rows)
    source, fetched = open_source(f"{bucket}/ranges/x.npy"), list[tuple[int, int]]()
    ranges = Bucket.ranges

    def counted(self: Bucket, name: str, asked: Any) -> list[bytes]:
        fetched.extend(asked)
        return ranges(self, name, asked)

    monkeypatch.setattr(Bucket, "ranges", counted)
    wanted = np.array([999, 5, 6, 5, 7])
    np.testing.assert_array_equal(source.rows(wanted), rows[wanted])
    assert sorted(stop - start for start, stop in fetched) == [160, 480]


def test_a_copy_is_made_once_and_anew_when_the_data_change(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url, place = f"{bucket}/copies/d.npz", place_of(f"{bucket}/copies")
    _save(place, "d.npz", 1)
    first = open_source(url)
    monkeypatch.setattr(Bucket, "stream", None)
    again = reopen(first.describe())
    np.testing.assert_array_equal(again.rows(slice(None)), first.rows(slice(None)))
    monkeypatch.undo()
    before = first.stamp()
    _save(place, "d.npz", 2)
    assert reopen(first.describe()).rows(slice(0, 1))[0, 0] == 2
    assert first.stamp() != before


def test_a_copy_that_is_lost_is_made_again(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADSTORE_CACHE", str(tmp_path / "cache"))
    _save(place_of(f"{bucket}/lost"), "d.npz", 1)
    description = open_source(f"{bucket}/lost/d.npz").describe()
    shutil.rmtree(tmp_path / "cache")
    assert len(reopen(description)) == 4


@pytest.mark.parametrize("name", ["none.npy", "none.npz", "none"])
def test_what_is_not_there_is_named(bucket: str, name: str) -> None:
    with pytest.raises(SourceNotFoundError, match=f"no data at '{bucket}/{name}'"):
        open_source(f"{bucket}/{name}")


def _save(place: Any, name: str, value: int) -> None:
    with place.replacing(name) as temporary, temporary.open("wb") as file:
        np.savez(file, x=np.full((4, 2), value))
