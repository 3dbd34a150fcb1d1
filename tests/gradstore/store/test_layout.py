from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
import zarr.storage

from gradstore.store import Store
from gradstore.store.layout import ARRAYS, ArrayLayout, metadata_files
from gradstore.testing.store_kit import example_batches, manifest_of, store_of


@pytest.fixture
def gradients() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(2, 11, 5)).astype(np.float32)


def test_plain_zarr_reads_the_values_that_the_store_reads(tmp_path: Path, gradients: np.ndarray[Any, Any]) -> None:
    store = store_of(tmp_path / "s", gradients, shard_rows=4)
    group = zarr.open_group(str(store.path), mode="r", zarr_format=3)
    for checkpoint in range(2):
        np.testing.assert_array_equal(_read(group, "sketches")[checkpoint], store.unit_sketches(checkpoint, 0, 11))
        np.testing.assert_array_equal(_read(group, "norms")[checkpoint], store.norms(checkpoint))
        np.testing.assert_array_equal(_read(group, "losses")[checkpoint], store.losses(checkpoint))
        np.testing.assert_array_equal(_read(group, "latents")[checkpoint], gradients[checkpoint])


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: array.name)
def test_metadata_is_what_zarr_itself_writes(array: ArrayLayout) -> None:
    manifest = manifest_of(n_examples=10, d_sketch=7, d_latent=3)
    shape = {"d_sketch": (7,), "d_latent": (3,), None: ()}[array.width]
    files: dict[str, Any] = {}
    zarr.create_array(
        zarr.storage.MemoryStore(files),
        shape=(2, 10, *shape),
        chunks=(1, 4, *shape),
        dtype="float16" if array.name == "sketches" else "float32",
        fill_value=float("nan"),
        compressors=None,
        filters=None,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=["checkpoint", "example", *([array.width] if array.width else [])],
        attributes={"encoding-type": array.encoding, "encoding-version": "1", "description": array.description},
    )
    assert json.loads(metadata_files(manifest)[f"{array.name}/zarr.json"]) == json.loads(files["zarr.json"].to_bytes())


def test_every_group_and_array_says_what_it_is(tmp_path: Path, gradients: np.ndarray[Any, Any]) -> None:
    store = store_of(tmp_path / "s", gradients)
    group = zarr.open_group(str(store.path), mode="r", zarr_format=3)
    nodes: list[zarr.Group | zarr.Array[Any]] = [group, *(array for _, array in group.arrays())]
    assert len(nodes) == 5
    for node in nodes:
        assert {"encoding-type", "encoding-version", "description"} <= set(node.attrs)
    assert group.attrs["encoding-type"] == "gradstore"


def test_a_row_that_was_never_written_looks_missing_to_zarr(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "s", manifest_of(), example_batches([f"x{row}" for row in range(11)]))
    group = zarr.open_group(str(store.path), mode="r", zarr_format=3)
    assert all(np.isnan(_read(group, array.name)).all() for array in ARRAYS)


def test_rows_behind_the_last_example_are_nan(tmp_path: Path, gradients: np.ndarray[Any, Any]) -> None:
    store = store_of(tmp_path / "s", gradients, shard_rows=4)  # 11 examples: the last shard has 3 rows
    tail = np.fromfile(store.path / "latents" / "c.1.2.0", dtype="<f4").reshape(4, 5)
    np.testing.assert_array_equal(tail[:3], gradients[1, 8:])
    assert np.isnan(tail[3]).all()


def test_one_shard_is_one_file_in_each_array(tmp_path: Path, gradients: np.ndarray[Any, Any]) -> None:
    store = store_of(tmp_path / "s", gradients, shard_rows=4)
    for array in ARRAYS:
        chunks = [file for file in (store.path / array.name).iterdir() if file.name != "zarr.json"]
        assert len(chunks) == 2 * 3


def _read(group: zarr.Group, name: str) -> np.ndarray[Any, Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[:])
