from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from gradstore.errors import StoreCorruptError, StoreNotFoundError
from gradstore.store import Store, verify, verify_at
from gradstore.store.commits import CommitRecord
from gradstore.testing.store_kit import example_batches, fill, manifest_of, store_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    gradients = np.random.default_rng(0).normal(size=(2, 11, 5))
    return store_of(tmp_path / "s", gradients, labels=[row % 3 for row in range(11)], shard_rows=4)


def test_a_whole_store_has_no_problem(store: Store) -> None:
    seen: list[int] = []
    report = verify(store, progress=seen.append)
    assert (report.ok, report.n_shards, report.n_committed, report.problems) == (True, 6, 6, ())
    assert (report.missing, report.damaged, report.extra, report.leftovers, report.pending) == ((), (), (), (), ())
    assert seen == [1, 2, 3, 4, 5, 6]


def test_an_unfinished_store_is_no_damaged_store(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "s", manifest_of(), example_batches([f"x{row}" for row in range(11)]))
    report = verify(store)
    assert report.ok
    assert len(report.pending) == 6


def test_every_flipped_bit_is_found(store: Store) -> None:
    random = np.random.default_rng(7)
    data_files = sorted(file for file in store.folder.glob("*/c.*"))
    assert len(data_files) == 4 * 6
    for _ in range(20):
        file = data_files[random.integers(len(data_files))]
        whole = file.read_bytes()
        torn = bytearray(whole)
        torn[random.integers(len(whole))] ^= 1 << random.integers(8)
        file.write_bytes(torn)
        assert verify(store).damaged == (file.relative_to(store.folder).as_posix(),)
        file.write_bytes(whole)
    assert verify(store).ok


def test_a_lost_or_short_file_is_found_and_refused_by_readers(store: Store) -> None:
    (store.folder / "latents" / "c.0.1.0").unlink()
    short = store.folder / "sketches" / "c.1.2.0"
    short.write_bytes(short.read_bytes()[:-20])
    report = verify(store)
    assert (report.missing, report.damaged) == (("latents/c.0.1.0",), ("sketches/c.1.2.0",))
    assert any("has 20 bytes; 40 were committed" in problem for problem in report.problems)
    with pytest.raises(StoreCorruptError, match=r"latents.c\.0\.1\.0 is committed but is missing.*gradstore verify"):
        store.latents(0, 0, 11)
    with pytest.raises(StoreCorruptError, match="has only 20 bytes"):
        store.sketch_rows(1, np.array([9]))
    with pytest.raises(StoreCorruptError):
        store.unit_sketches(1, 10, 11)


def test_deleting_the_record_as_told_heals_a_damaged_shard(store: Store) -> None:
    whole = verify(store), store.content_fingerprint()
    (store.folder / "norms" / "c.1.0").write_bytes(b"")
    (problem,) = verify(store).problems
    assert "Delete commits/1-0.json, then run the same build command again" in problem
    (store.folder / "commits" / "1-0.json").unlink()
    gradients = np.random.default_rng(0).normal(size=(2, 11, 5)).astype(np.float32)
    fill(store, gradients, np.zeros((2, 11), np.float32), gradients)
    assert (verify(store), store.content_fingerprint()) == whole


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff", b'{"checkpoint": 0}'])
def test_an_unreadable_record_is_damage(store: Store, data: bytes) -> None:
    (store.folder / "commits" / "0-0.json").write_bytes(data)
    assert verify(store).damaged == ("commits/0-0.json",)


def test_a_record_under_the_name_of_another_shard_is_damage(store: Store) -> None:
    commits = store.folder / "commits"
    (commits / "0-0.json").write_bytes((commits / "0-1.json").read_bytes())
    assert verify(store).damaged == ("commits/0-0.json",)


def test_files_that_no_shard_has_are_extra(store: Store) -> None:
    (store.folder / "norms" / "c.0.9").write_bytes(b"")
    (store.folder / "commits" / "7-0.json").write_bytes(b"")
    (store.folder / "indexes").mkdir()  # what else lies in the folder is none of the store's business
    (store.folder / "ranking.csv").write_bytes(b"")
    report = verify(store)
    assert report.extra == ("commits/7-0.json", "norms/c.0.9")
    assert not report.ok


def test_metadata_that_contradicts_the_manifest_is_damage(store: Store) -> None:
    file = store.folder / "losses" / "zarr.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"shape": [2, 12]}))
    (store.folder / "zarr.json").unlink()
    report = verify(store)
    assert (report.missing, report.damaged) == (("zarr.json",), ("losses/zarr.json",))


def test_a_reworded_description_is_damage(store: Store) -> None:
    file = store.folder / "losses" / "zarr.json"
    file.write_text(file.read_text().replace("loss of each example", "the loss"))
    assert verify(store).damaged == ("losses/zarr.json",)


def test_a_record_of_rows_by_other_settings_is_damage(store: Store) -> None:
    record = store.folder / "commits" / "1-0.json"
    held = CommitRecord.read(store.place, 1, 0)
    record.write_bytes(dataclasses.replace(held, fingerprint="0" * 64).to_bytes())
    (problem,) = verify(store).problems
    assert "commits/1-0.json is of rows made by other settings (fingerprint 000000000000" in problem


def test_a_store_that_does_not_open_is_reported_too(store: Store) -> None:
    manifest = store.folder / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"d_latent": 5', b'"d_latent": 4'))
    assert verify_at(store.folder).damaged == ("manifest.json",)
    with pytest.raises(StoreNotFoundError):
        verify_at(store.folder / "elsewhere")


def test_a_version_that_a_bit_has_changed_is_no_older_format(store: Store) -> None:
    manifest = store.folder / "manifest.json"
    for version in (b"1", b"2", b"7"):
        changed = manifest.read_bytes().replace(b'"format_version": 3', b'"format_version": ' + version)
        (store.folder / "copy").mkdir(exist_ok=True)
        (store.folder / "copy" / "manifest.json").write_bytes(changed)
        assert verify_at(store.folder / "copy").damaged == ("manifest.json",)


def test_other_examples_are_damage(store: Store) -> None:
    (store.folder / "examples.parquet").write_bytes(b"PAR1")
    assert verify(store).damaged == ("examples.parquet",)
    (store.folder / "examples.parquet").unlink()
    assert verify(store).missing == ("examples.parquet",)


def test_the_report_is_json(store: Store) -> None:
    (store.folder / "norms" / "c.1.0").unlink()
    document = json.loads(verify(store).to_json())
    assert (document["ok"], document["missing"], document["n_committed"]) == (False, ["norms/c.1.0"], 6)
