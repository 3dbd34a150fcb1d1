"""What a store must do wherever it lies. Subclass it, say where, and inherit the tests:

class TestStoreInMyPlace(StoreContract):
    @pytest.fixture
    def location(self) -> Location: ...
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gradstore.errors import (
    StoreCorruptError,
    StoreError,
    StoreIncompleteError,
    StoreMismatchError,
    StoreNotFoundError,
)
from gradstore.store import ShardRows, Store, verify
from gradstore.store.commits import CommitTable
from gradstore.store.manifest import SKETCH_DTYPES, SketchDtype
from gradstore.store.place import Location, below, place_of
from gradstore.testing.store_kit import arrays_for, example_batches, fill, manifest_of, shard_rows_of

_IDS = [f"x{row}" for row in range(11)]


class StoreContract:
    """Tests that hold for a store anywhere; nothing is at `location` yet."""

    @pytest.fixture
    def empty(self, location: Location) -> Store:
        """Of 11 examples and 2 checkpoints in shards of 4, with predictions of 3 classes; nothing is committed."""
        return Store.create(location, manifest_of(n_classes=3), example_batches(_IDS))

    @pytest.mark.parametrize("dtype", SKETCH_DTYPES)
    def test_what_was_written_is_read_by_range_and_by_number(self, location: Location, dtype: SketchDtype) -> None:
        store = Store.create(location, manifest_of(sketch_dtype=dtype), example_batches(_IDS))
        gradients, losses, latents = arrays_for(store)
        fill(store, gradients, losses, latents)
        rows, units = np.array([10, 0, 7, 7]), _units(gradients[1])
        exact = {"float16": 2.0**-11, "float32": 2.0**-23, "int8": 0.5 / 127}[dtype]  # of an entry at most 1
        np.testing.assert_allclose(store.precise_sketches(1, 0, 11), units, atol=exact)
        np.testing.assert_allclose(store.unit_sketches(1, 2, 9), units[2:9], atol=exact + 2.0**-11)
        np.testing.assert_array_equal(store.sketch_rows(1, rows), store.unit_sketches(1, 0, 11)[rows])
        np.testing.assert_array_equal(store.mapped_sketches(1, 5, 8), store.unit_sketches(1, 5, 8))
        np.testing.assert_array_equal(store.latents(0, 3, 11), latents[0, 3:])
        np.testing.assert_array_equal(store.latent_rows(0, rows), latents[0, rows])
        np.testing.assert_array_equal(store.losses(1), losses[1])
        assert store.unit_sketches(1, 4, 4).shape == (0, 5)
        assert store.unit_sketches(0, 0, 1).dtype == store.sketch_rows(0, rows).dtype == np.float16

    def test_examples_have_their_names(self, empty: Store) -> None:
        assert empty.ids(2, 4) == ["x2", "x3"]
        assert empty.row_of(["x10", "x0"]).tolist() == [10, 0]

    def test_the_order_of_writing_leaves_no_trace(self, location: Location) -> None:
        for name, reverse in (("one", False), ("other", True)):
            store = Store.create(below(location, name), manifest_of(), example_batches(_IDS))
            for checkpoint, shard in sorted(store.pending(), reverse=reverse):
                store.write_shard(checkpoint, shard, _rows(store, checkpoint, shard))
        one, other = (Store.open(below(location, name)) for name in ("one", "other"))
        assert content_of(one) == content_of(other)
        assert one.content_fingerprint() == other.content_fingerprint()

    def test_a_finished_store_verifies(self, empty: Store) -> None:
        fill(empty, *arrays_for(empty))
        assert verify(empty).ok
        assert Store.open(empty.location).is_complete

    def test_rows_that_are_not_committed_cannot_be_read(self, empty: Store) -> None:
        empty.write_shard(0, 0, _rows(empty, 0, 0))
        assert len(empty.latents(0, 0, 4)) == 4
        with pytest.raises(StoreIncompleteError, match="1 of 6 shards are done"):
            empty.latents(0, 3, 5)

    def test_what_others_commit_is_seen(self, empty: Store) -> None:
        other = Store.open(empty.location)
        other.write_shard(0, 0, _rows(other, 0, 0))
        assert empty.is_committed(0, 0)
        other.write_shard(1, 2, _rows(other, 1, 2))
        assert list(empty.pending()) == [(0, 1), (0, 2), (1, 0), (1, 1)]

    def test_two_writers_of_one_shard_leave_it_whole(self, empty: Store) -> None:
        stores = [Store.open(empty.location) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda store: store.write_shard(0, 1, _rows(store, 0, 1)), stores))
        assert list(CommitTable(empty.place, empty.manifest).pending()) == [u for u in _units_of(empty) if u != (0, 1)]
        assert verify(empty).ok

    def test_a_writer_with_other_rows_is_told_when_it_comes_second(
        self, empty: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        late = Store.open(empty.location)
        monkeypatch.setattr(late, "is_committed", _not_yet)  # it looked before the other wrote
        empty.write_shard(0, 0, _rows(empty, 0, 0))
        record = empty.place.read("commits/0-0.json")
        with pytest.raises(StoreMismatchError, match=r"wrote commits/0-0\.json.*their rows differ"):
            late.write_shard(0, 0, _rows(late, 0, 0, seed=1))
        assert empty.place.read("commits/0-0.json") == record

    def test_a_committed_shard_stays_until_it_is_discarded(self, empty: Store) -> None:
        empty.write_shard(0, 0, _rows(empty, 0, 0))
        before = empty.content_fingerprint()
        empty.write_shard(0, 0, _rows(empty, 0, 0, seed=1))
        assert empty.content_fingerprint() == before
        empty.discard(0, 0)
        empty.write_shard(0, 0, _rows(empty, 0, 0, seed=1))
        assert empty.content_fingerprint() != before

    def test_a_file_that_is_lost_or_short_is_damage(self, empty: Store) -> None:
        fill(empty, *arrays_for(empty))
        data = empty.place.read("latents/c.0.1.0")
        empty.place.write("latents/c.0.1.0", data[:-8] if not empty.manifest.sharded else data[:20])
        with pytest.raises(StoreCorruptError, match=r"latents.c\.0\.1\.0"):
            empty.latents(0, 0, 11)
        empty.place.remove("sketches/c.1.2.0")
        with pytest.raises(StoreCorruptError, match=r"sketches.c\.1\.2\.0 is committed but is missing"):
            empty.sketch_rows(1, np.array([9]))
        with pytest.raises(StoreCorruptError, match=r"sketches.c\.1\.2\.0 is committed but is missing"):
            empty.unit_sketches(1, 10, 11)
        assert not verify(empty).ok

    def test_creating_it_again_opens_it_without_reading_the_source(self, empty: Store) -> None:
        again = Store.create(empty.location, manifest_of(n_classes=3, provenance={"attempt": 2}), _unreadable())
        assert again.manifest == empty.manifest
        with pytest.raises(StoreMismatchError, match="d_sketch: store has 5; this run asks for 6"):
            Store.create(empty.location, manifest_of(n_classes=3, d_sketch=6), _unreadable())

    def test_several_creators_at_once_get_one_store(self, location: Location) -> None:
        with ThreadPoolExecutor(4) as pool:
            stores = list(pool.map(lambda _: Store.create(location, manifest_of(), example_batches(_IDS)), range(4)))
        assert len({store.manifest.examples_sha256 for store in stores}) == 1
        assert verify(stores[0]).ok

    def test_other_files_are_not_touched(self, location: Location) -> None:
        place = place_of(location)
        place.write("years/thesis.tex", b"years of work")
        with pytest.raises(StoreError, match=r"holds years\. Nothing was touched"):
            Store.create(location, manifest_of(), example_batches(_IDS))
        assert [entry.name for entry in place.entries()] == ["years/thesis.tex"]

    def test_nothing_says_how_to_make_a_store(self, location: Location) -> None:
        with pytest.raises(StoreNotFoundError, match="gradstore build SOURCE --store"):
            Store.open(location)
        place_of(location).write("build/request.json", b"{}")
        with pytest.raises(StoreNotFoundError, match="still being prepared"):
            Store.open(location)

    def test_a_pickled_store_reads_the_same(self, empty: Store) -> None:
        fill(empty, *arrays_for(empty))
        again = pickle.loads(pickle.dumps(empty))
        np.testing.assert_array_equal(again.norms(0), empty.norms(0))
        assert again.manifest == empty.manifest

    def test_damaged_metadata_is_written_anew(self, empty: Store) -> None:
        before = content_of(empty)
        empty.place.remove("norms/zarr.json")
        empty.place.write("zarr.json", before["zarr.json"].replace(b"gradient store", b"gradient sTore"))
        Store.create(empty.location, manifest_of(n_classes=3), _unreadable())
        assert content_of(empty) == before


def content_of(store: Store) -> dict[str, bytes]:
    """Every file where a store lies."""
    return {entry.name: store.place.read(entry.name) for entry in store.place.entries()}


def _not_yet(checkpoint: int, shard: int) -> bool:
    return False


def _rows(store: Store, checkpoint: int, shard: int, seed: int = 0) -> ShardRows:
    return shard_rows_of(store, checkpoint, shard, *arrays_for(store, seed))


def _units(gradients: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    exact = gradients.astype(np.float64)
    return np.asarray(exact / np.linalg.norm(exact, axis=1, keepdims=True))


def _units_of(store: Store) -> list[tuple[int, int]]:
    return [(t, s) for t in range(store.n_checkpoints) for s in range(store.n_shards)]


def _unreadable() -> Iterator[pa.RecordBatch]:
    return map(_refuse, example_batches(_IDS))


def _refuse(batch: pa.RecordBatch) -> pa.RecordBatch:
    raise AssertionError(f"the source was read: {batch}")
