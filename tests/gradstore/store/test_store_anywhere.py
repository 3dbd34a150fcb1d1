"""The store's contract in a folder, sharded in a folder, and in a bucket; and what Zarr makes of each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
import zarr.storage

from gradstore.errors import StoreCorruptError
from gradstore.store import Store
from gradstore.store.layout import arrays
from gradstore.store.place import Location
from gradstore.store.sharding import INNER_BYTES, Sharding
from gradstore.testing.store_contract import StoreContract
from gradstore.testing.store_kit import arrays_for, example_batches, fill, manifest_of
from tests.buckets import s3

IDS = [f"x{row}" for row in range(11)]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3(tmp_path_factory.mktemp("cache")) as url:
        yield url


@pytest.fixture
def url(bucket: str, request: pytest.FixtureRequest) -> str:
    return f"{bucket}/{request.node.name}"


class TestStoreInAFolder(StoreContract):
    @pytest.fixture
    def location(self, tmp_path: Path) -> Location:
        return tmp_path / "s"


class TestStoreInABucket(StoreContract):
    @pytest.fixture
    def location(self, url: str) -> Location:
        return url


def stored(location: Location, **changes: Any) -> Store:
    store = Store.create(location, manifest_of(n_classes=3, **changes), example_batches(IDS))
    fill(store, *arrays_for(store))
    return store


def test_a_store_in_a_bucket_is_sharded_and_one_in_a_folder_is_not(tmp_path: Path, url: str) -> None:
    assert (stored(url).manifest.sharded, stored(tmp_path / "s").manifest.sharded) == (True, False)


def test_a_store_that_is_copied_from_a_bucket_reads_the_same_and_is_finished_as_it_is(tmp_path: Path, url: str) -> None:
    there = stored(url)
    for entry in there.place.entries():
        (tmp_path / entry.name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / entry.name).write_bytes(there.place.read(entry.name))
    here = Store.create(tmp_path, manifest_of(n_classes=3), iter(()))
    np.testing.assert_array_equal(here.unit_sketches(1, 1, 10), there.unit_sketches(1, 1, 10))
    np.testing.assert_array_equal(here.sketch_rows(0, np.array([9, 2])), there.sketch_rows(0, np.array([9, 2])))
    here.discard(1, 1)
    fill(here, *arrays_for(here))
    assert here.content_fingerprint() == there.content_fingerprint()


def test_rows_of_both_layouts_are_the_same(tmp_path: Path) -> None:
    plain, sharded = stored(tmp_path / "plain"), stored(tmp_path / "sharded", sharded=True)
    for array in ("unit_sketches", "latents", "predictions"):
        np.testing.assert_array_equal(getattr(plain, array)(0, 2, 11), getattr(sharded, array)(0, 2, 11))
    assert plain.manifest.fingerprint(0) == sharded.manifest.fingerprint(0)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_zarr_reads_a_bucket(url: str, dtype: str) -> None:
    from obstore.store import from_url

    store = stored(url, sketch_dtype=dtype)
    objects = zarr.storage.ObjectStore(from_url(url, client_options={"allow_http": True}), read_only=True)
    group = zarr.open_group(objects, mode="r", zarr_format=3)
    sketches = _read(group, "sketches")[1].astype(np.float32)
    if dtype == "int8":
        sketches = sketches * _read(group, "scales")[1][:, None]
    np.testing.assert_array_equal(sketches, store.precise_sketches(1, 0, 11))
    np.testing.assert_array_equal(_read(group, "latents")[0], store.latents(0, 0, 11))
    np.testing.assert_array_equal(_read(group, "norms")[0], store.norms(0))


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_zarr_sees_that_a_row_was_never_written(tmp_path: Path, sharded: bool, dtype: str) -> None:
    manifest = manifest_of(sharded=sharded, sketch_dtype=dtype)
    store = Store.create(tmp_path / "s", manifest, example_batches(IDS))
    group = zarr.open_group(str(store.folder), mode="r", zarr_format=3)
    for array in arrays(manifest):
        values = _read(group, array.name)
        assert (np.isnan(values) if values.dtype != np.int8 else values == -128).all()


def test_every_flipped_byte_of_a_sharded_file_that_holds_rows_is_found_when_it_is_read(tmp_path: Path) -> None:
    store = stored(tmp_path / "s", sharded=True)
    file = store.folder / "latents" / "c.0.1.0"
    whole, sharding = file.read_bytes(), Sharding(4, 12)
    assert len(whole) == sharding.file_bytes
    for place in range(sharding.n_chunks * (sharding.chunk_bytes + 4)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(StoreCorruptError, match=r"c\.0\.1\.0 has other bytes in its chunk"):
            store.latents(0, 4, 8)


@pytest.mark.parametrize(("shard_rows", "row_bytes"), [(64, 2048), (8192, 1024), (4096, 4), (5, 1 << 20), (7, 90_000)])
def test_inner_chunks_are_equal_and_as_large_as_256_kib_allow(shard_rows: int, row_bytes: int) -> None:
    sharding = Sharding(shard_rows, row_bytes)
    assert sharding.rows * sharding.n_chunks == shard_rows
    assert sharding.chunk_bytes <= INNER_BYTES or sharding.rows == 1
    larger = [rows for rows in range(sharding.rows + 1, shard_rows + 1) if shard_rows % rows == 0]
    assert all(rows * row_bytes > INNER_BYTES for rows in larger)


def test_scattered_rows_of_a_large_shard_are_fetched_by_chunk(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).integers(0, 255, (4096, 1024), dtype=np.uint8)
    sharding, fetched = Sharding(4096, 1024), list[tuple[int, int]]()
    packed = bytes(sharding.pack(rows))

    def fetch(ranges: Any) -> list[bytes]:
        fetched.extend(ranges)
        return [packed[start:stop] for start, stop in ranges]

    wanted = np.array([0, 3, 300, 301, 4095])
    np.testing.assert_array_equal(sharding.read(fetch, wanted, "f"), rows[wanted])
    assert sum(stop - start for start, stop in fetched) < 4 * (INNER_BYTES + 8)


def _read(group: zarr.Group, name: str) -> np.ndarray[Any, Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[:])
