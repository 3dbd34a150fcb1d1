from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gradstore
from gradstore.store import Store, verify
from gradstore.store.repair import repair
from gradstore.testing.store_kit import fill, store_of

GRADIENTS = np.random.default_rng(0).normal(size=(2, 11, 5)).astype(np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return store_of(tmp_path / "s", GRADIENTS)


def torn(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_damaged_shards_are_taken_back_and_built_again(store: Store) -> None:
    whole = {file: file.read_bytes() for file in store.folder.rglob("*") if file.is_file()}
    torn(store.folder / "sketches" / "c.0.1.0")
    torn(store.folder / "commits" / "1-2.json")
    (store.folder / "norms" / "c.1.0").unlink()
    mended = repair(store, verify(store))
    assert (mended.discarded, mended.left) == (((0, 1), (1, 0), (1, 2)), ())
    assert list(store.pending()) == [(0, 1), (1, 0), (1, 2)]
    fill(store, GRADIENTS, np.zeros((2, 11), np.float32), GRADIENTS)
    assert {file: file.read_bytes() for file in store.folder.rglob("*") if file.is_file()} == whole


def test_what_the_manifest_knows_is_written_anew(store: Store) -> None:
    torn(store.folder / "zarr.json")
    (store.folder / "losses" / "zarr.json").unlink()
    assert repair(store, verify(store)).done == ("Wrote zarr.json anew.", "Wrote losses/zarr.json anew.")
    assert verify(store).ok


def test_what_is_computed_from_the_rows_is_removed(store: Store) -> None:
    opened = gradstore.open(store.folder)
    opened.rank()
    index = opened.build_index("none", "flat")
    torn(store.folder / "signals.parquet")
    torn(index)
    assert len(verify(store).damaged) == 2
    repair(store, verify(store))
    assert verify(store).ok
    assert not (store.folder / "signals.parquet").exists()
    assert not opened.has_index("none", "flat")


def test_files_of_no_shard_are_removed_and_others_left_alone(store: Store) -> None:
    (store.folder / "norms" / "c.0.9").write_bytes(b"")
    (store.folder / "norms" / "thesis.txt").write_text("mine")
    mended = repair(store, verify(store))
    assert mended.done == ("Removed norms/c.0.9.",)
    assert [finding.file for finding in mended.left] == ["norms/thesis.txt"]


def test_what_nothing_in_the_store_can_mend_is_said(store: Store) -> None:
    torn(store.folder / "examples.parquet")
    mended = repair(store, verify(store))
    assert [finding.file for finding in mended.left] == ["examples.parquet"]


def test_a_sound_store_needs_no_repair(store: Store) -> None:
    mended = repair(store, verify(store))
    assert (mended.done, mended.left, mended.discarded) == ((), (), ())
