from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from gradstore.errors import ShapeError, StoreError, StoreFormatError, StoreMismatchError, StoreNotFoundError
from gradstore.store import Store, verify
from gradstore.testing.store_kit import dying_after, example_batches, manifest_of

IDS = [f"x{row}" for row in range(11)]


def test_creating_a_store_again_opens_it_without_reading_the_source(tmp_path: Path) -> None:
    first = _create(tmp_path / "s")
    again = Store.create(tmp_path / "s", manifest_of(provenance={"attempt": 2}), _unreadable())
    assert again.manifest == first.manifest


def test_other_settings_are_refused_showing_both_values(tmp_path: Path) -> None:
    Store.create(tmp_path / "s", manifest_of(settings={"projection": {"d": 512, "seed": 0}}), example_batches(IDS))
    asked = manifest_of(settings={"projection": {"d": 1024, "seed": 0}}, learning_rates=(0.1, 0.5))
    with pytest.raises(StoreMismatchError) as caught:
        Store.create(tmp_path / "s", asked, _unreadable())
    message = str(caught.value)
    assert "learning_rates.1: store has 0.2; this run asks for 0.5" in message
    assert "projection.d: store has 512; this run asks for 1024" in message
    assert "seed" not in message
    assert "another --store path" in message


def test_a_folder_that_holds_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"holds thesis\.tex\. Nothing was touched"):
        _create(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("")
    with pytest.raises(StoreError, match="is a file"):
        _create(tmp_path / "s")


def test_a_store_is_created_beside_the_checkpoints_trained_for_it(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "build.json").write_text("{}")
    assert _create(tmp_path).n_examples == 11


def test_commit_records_without_a_manifest_are_refused(tmp_path: Path) -> None:
    """Nobody knows by which settings those rows were made."""
    store = _create(tmp_path / "s")
    (store.folder / "commits" / "0-0.json").write_text("{}")
    (store.folder / "manifest.json").unlink()
    with pytest.raises(StoreError, match=r"commits/0-0\.json"):
        _create(tmp_path / "s")


@pytest.mark.parametrize("n_files", range(6))
def test_a_creation_killed_half_way_is_completed(tmp_path: Path, n_files: int) -> None:
    """Five zarr.json and the manifest are written one by one: die before each."""
    whole = _bytes_of(_create(tmp_path / "whole"))
    with dying_after(n_files), pytest.raises(KeyboardInterrupt):
        _create(tmp_path / "s")
    with pytest.raises(StoreNotFoundError):
        Store.open(tmp_path / "s")
    assert _bytes_of(_create(tmp_path / "s")) == whole


def test_a_source_that_breaks_off_leaves_no_store(tmp_path: Path) -> None:
    def breaking() -> Iterator[pa.RecordBatch]:
        yield from example_batches(IDS[:5])
        raise OSError("the data disk is gone")

    with pytest.raises(OSError, match="the data disk is gone"):
        Store.create(tmp_path / "s", manifest_of(), breaking())
    assert not list((tmp_path / "s").glob("*.*"))
    assert _create(tmp_path / "s").n_examples == 11


def test_a_source_of_another_length_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="says 11 examples, the source gave 10"):
        Store.create(tmp_path / "s", manifest_of(), example_batches(IDS[:10]))


def test_several_creators_at_once_get_one_store(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(_create, [tmp_path / "s"] * 4))
    assert len({store.manifest.examples_sha256 for store in stores}) == 1
    assert verify(stores[0]).ok


def test_lost_metadata_is_written_anew(tmp_path: Path) -> None:
    before = _bytes_of(_create(tmp_path / "s"))
    (tmp_path / "s" / "norms" / "zarr.json").unlink()
    (tmp_path / "s" / "zarr.json").write_text("torn")
    assert _bytes_of(_create(tmp_path / "s")) == before


def test_opening_nothing_says_how_to_make_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFoundError, match="gradstore build SOURCE --store"):
        Store.open(tmp_path / "nothing")


def test_a_newer_store_is_refused_by_name(tmp_path: Path) -> None:
    manifest = _create(tmp_path / "s").folder / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format_version": 99}))
    with pytest.raises(StoreFormatError, match="has format 99") as caught:
        Store.open(tmp_path / "s")
    assert any(str(tmp_path / "s") in note for note in caught.value.__notes__)


def _create(path: Path) -> Store:
    return Store.create(path, manifest_of(), example_batches(IDS))


def _unreadable() -> Iterator[pa.RecordBatch]:
    return map(_refuse, example_batches(IDS))


def _refuse(batch: pa.RecordBatch) -> pa.RecordBatch:
    raise AssertionError(f"the source was read: {batch}")


def _bytes_of(store: Store) -> dict[str, bytes]:
    return {str(f.relative_to(store.folder)): f.read_bytes() for f in store.folder.rglob("*") if f.is_file()}
