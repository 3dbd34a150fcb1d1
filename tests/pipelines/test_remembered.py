"""What an earlier run found out about the data is used again, and only where it is still so."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gradstore.errors import CorruptExampleError, StoreMismatchError
from gradstore_pipelines import preparation
from gradstore_pipelines.build_store import build
from gradstore_pipelines.settings import BuildSettings


@pytest.fixture
def settings(tmp_path: Path) -> BuildSettings:
    """Of a folder of images, one of them broken."""
    (tmp_path / "photos").mkdir()
    for row in range(20):
        pixels = np.random.default_rng(row).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{row}.png")
    (tmp_path / "photos" / "broken.png").write_bytes(b"no image")
    small = {"epochs": 1, "n_checkpoints": 1, "sketch_dim": 16, "image_size": 8}
    return BuildSettings(source=tmp_path / "photos", store=tmp_path / "store", on_corrupt="skip", **small)  # type: ignore[arg-type]


def test_a_store_begun_with_skip_is_finished_by_the_plain_command(settings: BuildSettings) -> None:
    with pytest.raises(CorruptExampleError, match="--on-corrupt skip"):
        build(dataclasses.replace(settings, on_corrupt="refuse"))
    assert build(settings).n_examples == 20
    assert build(dataclasses.replace(settings, on_corrupt="refuse")).sketched_shards == 0


def test_data_that_nobody_has_touched_are_not_read_again(
    settings: BuildSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(settings)

    def refuse(*words: object, **options: object) -> None:
        raise AssertionError(words)

    monkeypatch.setattr(preparation, "open_source", refuse)
    monkeypatch.setattr(preparation, "scan", refuse)
    assert build(settings).sketched_shards == 0


def test_a_file_that_was_touched_is_read_again_and_what_is_in_it_decides(
    settings: BuildSettings, tmp_path: Path
) -> None:
    build(settings)
    os.utime(tmp_path / "photos" / "3.png", (1, 1))
    assert build(settings).sketched_shards == 0
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "photos" / "3.png")
    with pytest.raises(StoreMismatchError, match=r"data\.content"):
        build(settings)


def test_another_size_is_another_data_set(settings: BuildSettings) -> None:
    build(settings)
    with pytest.raises(StoreMismatchError, match=r"data\.example_shape"):
        build(dataclasses.replace(settings, image_size=4))
