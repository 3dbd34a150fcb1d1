"""A full disk, and one that turns read-only: a clear error, nothing committed is lost, and the same command goes on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from gradstore.errors import StoreWriteError
from gradstore.store import Store
from gradstore_pipelines.build_store import build
from gradstore_pipelines.progress import Advance, Silent
from gradstore_pipelines.settings import BuildSettings

TOY = f"{Path(__file__).parent / 'toy_task.py'}:Toy"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=220k", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def settings(source: Path, store: Path) -> BuildSettings:
    return BuildSettings(source=source, store=store, model=TOY, epochs=1, n_checkpoints=2, sketch_dim=128)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).integers(0, 255, (600, 8, 8), np.uint8))
    return tmp_path / "rows.npy"


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def require_same_rows(store: Path, other: Path) -> None:
    for array in ("sketches", "norms", "losses", "latents", "commits"):
        for file in (other / array).iterdir():
            assert (store / array / file.name).read_bytes() == file.read_bytes()


def test_a_full_disk_loses_nothing(small_disk: Path, rows: Path, tmp_path: Path) -> None:
    store = small_disk / "store"
    with pytest.raises(StoreWriteError, match="Free space"):
        build(settings(rows, store))
    committed = Store.open(store).n_committed
    assert 0 < committed < Store.open(store).n_shards * 2
    remount(small_disk, "size=20m")
    build(settings(rows, store))
    build(settings(rows, tmp_path / "elsewhere"))
    require_same_rows(store, tmp_path / "elsewhere")


class ReadOnlyAfter(Silent):
    """Turns the disk read-only while shards are being made."""

    def __init__(self, disk: Path) -> None:
        self.disk, self.left = disk, 3

    @contextmanager
    def task(self, title: str, total: int, unit: str, done: int = 0, **more: object) -> Iterator[Advance]:
        def advance(n: int) -> None:
            self.left -= title == "sketch"
            if not self.left:
                remount(self.disk, "ro")

        yield advance


def test_a_folder_that_turns_read_only_loses_nothing(small_disk: Path, rows: Path, tmp_path: Path) -> None:
    store = small_disk / "store"
    remount(small_disk, "size=20m")
    with pytest.raises(StoreWriteError, match="Make the folder writable, then run the same command"):
        build(settings(rows, store), ReadOnlyAfter(small_disk))
    remount(small_disk, "rw")
    assert 0 < Store.open(store).n_committed < Store.open(store).n_shards * 2
    build(settings(rows, store))
    build(settings(rows, tmp_path / "elsewhere"))
    require_same_rows(store, tmp_path / "elsewhere")
