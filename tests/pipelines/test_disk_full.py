"""A full disk: a clear error, nothing committed is lost, and the same command goes on when there is room."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gradstore.errors import StoreWriteError
from gradstore.store import Store
from gradstore_pipelines.build_store import build
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


def test_a_full_disk_loses_nothing(small_disk: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).integers(0, 255, (600, 8, 8), np.uint8))

    def settings(store: Path) -> BuildSettings:
        return BuildSettings(
            source=tmp_path / "rows.npy", store=store, model=TOY, epochs=1, n_checkpoints=2, sketch_dim=128
        )

    with pytest.raises(StoreWriteError, match="Free space"):
        build(settings(small_disk / "store"))
    committed = Store.open(small_disk / "store").n_committed
    assert 0 < committed < Store.open(small_disk / "store").n_shards * 2
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    build(settings(small_disk / "store"))
    build(settings(tmp_path / "elsewhere"))
    for array in ("sketches", "norms", "losses", "latents", "commits"):
        for file in (tmp_path / "elsewhere" / array).iterdir():
            assert (small_disk / "store" / array / file.name).read_bytes() == file.read_bytes()
