"""A folder and a bucket keep the same promises; what only one of them has."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gradstore.errors import MissingExtraError, PlaceError, StoreError, StoreWriteError
from gradstore.store.files import create_atomically
from gradstore.store.place import Place, cache_folder, place_of
from gradstore.testing.place_kit import PlaceContract
from tests.buckets import s3


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3(tmp_path_factory.mktemp("cache")) as url:
        yield url


class TestFolder(PlaceContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return place_of(tmp_path / "place")


class TestBucket(PlaceContract):
    @pytest.fixture
    def place(self, bucket: str, request: pytest.FixtureRequest) -> Place:
        return place_of(f"{bucket}/{request.node.name}")


def test_a_folder_gives_the_file_itself_and_a_bucket_none(tmp_path: Path) -> None:
    assert place_of(tmp_path).local("a/b") == tmp_path / "a" / "b"
    assert place_of("s3://somewhere/else").local("a/b") is None


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP])
def test_without_hard_links_a_new_name_is_given_once_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def no_links(path: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    assert create_atomically(tmp_path / "f", b"first")
    assert not create_atomically(tmp_path / "f", b"second")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("f", b"first")]


def test_a_file_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(StoreError, match="is a file; a store is a folder"):
        list(place_of(tmp_path / "f").names())


def test_a_bucket_that_is_not_there_says_what_to_check(bucket: str) -> None:
    nowhere = place_of("s3://no-such-bucket/x")
    with pytest.raises(StoreWriteError, match=r"Cannot write s3://no-such-bucket/x/f.*credentials and endpoint"):
        nowhere.write("f", b"")
    with pytest.raises(PlaceError, match=r"Cannot read s3://no-such-bucket/x.*AWS_ENDPOINT_URL"):
        list(nowhere.names())


def test_the_cache_of_a_bucket_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADSTORE_CACHE", str(tmp_path))
    one, other = cache_folder("s3://bucket/a/digits.store"), cache_folder("s3://bucket/b/digits.store")
    assert one.parent == other.parent == tmp_path
    assert one != other
    assert one.name.startswith("digits.store-")


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(StoreError, match=r"'https://example\.org/x' is neither a folder nor in a bucket.*s3://"):
        place_of("https://example.org/x")


def test_without_the_package_a_bucket_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'gradstore\[s3\]'"):
        place_of("s3://bucket/x").read("f")
