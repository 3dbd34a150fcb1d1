from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
import zarr.codecs
import zarr.storage

from gradstore.store import Store
from gradstore.store.layout import arrays
from gradstore.store.metadata import metadata_files
from gradstore.testing.store_kit import example_batches, manifest_of, store_of


@pytest.fixture
def gradients() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(2, 11, 5)).astype(np.float32)


def test_plain_zarr_reads_the_values_that_the_store_reads(tmp_path: Path, gradients: np.ndarray[Any, Any]) -> None:
    store = store_of(tmp_path / "s", gradients, shard_rows=4)
    group = zarr.open_group(str(store.folder), mode="r", zarr_format=3)
    for checkpoint in range(2):
        np.testing.assert_array_equal(_read(group, "sketches")[checkpoint], store.unit_sketches(checkpoint, 0, 11))
        np.testing.assert_array_equal(_read(group, "norms")[checkpoint], store.norms(checkpoint))
        np.testing.assert_array_equal(_read(group, "losses")[checkpoint], store.losses(checkpoint))
        np.testing.assert_array_equal(_read(group, "latents")[checkpoint], gradients[checkpoint])


# kind -> (encoding-type, what a row's numbers are)
KINDS = {
    "sketches": ("gradient-sketches", "d_sketch"),
    "scales": ("gradient-sketch-scales", None),
    "norms": ("gradient-norms", None),
    "layer_norms": ("gradient-layer-norms", "layer"),
    "draw_norms": ("gradient-draw-norms", None),
    "losses": ("losses", None),
    "latents": ("latents", "d_latent"),
    "predictions": ("predictions", "class"),
}
OF_SETS = ("sketches", "norms", "layer_norms", "draw_norms")
EVERYTHING: dict[str, Any] = {
    "parameter_sets": ("encoder", "all"),
    "layers": {"encoder": ("a", "b"), "all": ("a", "b", "c")},
    "n_draws": 3,
    "n_classes": 4,
}
NAMES = [*(f"{kind}{suffix}" for suffix in ("", "-1") for kind in OF_SETS), "losses", "latents", "predictions"]


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize(
    ("name", "dtype"), [*((name, "float16") for name in NAMES), ("scales-1", "int8"), ("sketches-1", "int8")]
)
def test_metadata_is_what_zarr_itself_writes(name: str, dtype: str, sharded: bool) -> None:
    changes = {"sketch_dtype": dtype, "sharded": sharded, **EVERYTHING}
    manifest = manifest_of(n_examples=10, d_sketch=7, d_latent=3, **changes)
    kind, is_second = name.removesuffix("-1"), name.endswith("-1")
    encoding, dimension = KINDS[kind]
    widths = {"d_sketch": (7,), "d_latent": (3,), "layer": (3 if is_second else 2,), "class": (4,), None: ()}
    shape, dtypes = widths[dimension], {"sketches": dtype, "predictions": "float16"}
    written = json.loads(metadata_files(manifest)[f"{name}/zarr.json"])
    attributes: dict[str, Any] = {"encoding-type": encoding, "encoding-version": "1"}
    attributes["description"] = written["attributes"]["description"]  # any wording
    if kind in (*OF_SETS, "scales"):
        attributes["parameters"] = "all" if is_second else "encoder"
    if kind == "sketches" and dtype == "int8":
        attributes["scales"] = "scales-1"
    if kind == "layer_norms":
        attributes["layers"] = ["a", "b", "c"] if is_second else ["a", "b"]
    files: dict[str, Any] = {}
    zarr.create_array(
        zarr.storage.MemoryStore(files),
        shape=(2, 10, *shape),
        chunks=(1, 4, *shape),
        shards=(1, 4, *shape) if sharded else None,
        dtype=dtypes.get(kind, "float32"),
        fill_value=float("nan") if dtypes.get(kind) != "int8" else -128,
        compressors=[zarr.codecs.Crc32cCodec()] if sharded else None,
        filters=None,
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=["checkpoint", "example", *([dimension] if dimension else [])],
        attributes=attributes,
    )
    assert written == json.loads(files["zarr.json"].to_bytes())


def test_arrays_are_those_of_the_sets_and_those_that_all_share() -> None:
    assert [array.name for array in arrays(manifest_of(**EVERYTHING))] == NAMES


def test_a_store_of_one_set_keeps_the_arrays_of_old() -> None:
    assert [array.name for array in arrays(manifest_of())] == ["sketches", "norms", "losses", "latents"]
    attributes = json.loads(metadata_files(manifest_of())["norms/zarr.json"])["attributes"]
    assert set(attributes) == {"encoding-type", "encoding-version", "description"}


def test_a_manifest_says_which_optional_arrays_there_are() -> None:
    names = {array.name for array in arrays(manifest_of(sketch_dtype="int8", n_classes=2))}
    assert names == {"sketches", "scales", "norms", "losses", "latents", "predictions"}


def test_every_group_and_array_says_what_it_is(tmp_path: Path, gradients: np.ndarray[Any, Any]) -> None:
    store = store_of(tmp_path / "s", gradients)
    group = zarr.open_group(str(store.folder), mode="r", zarr_format=3)
    nodes: list[zarr.Group | zarr.Array[Any]] = [group, *(array for _, array in group.arrays())]
    assert len(nodes) == 5
    for node in nodes:
        assert {"encoding-type", "encoding-version", "description"} <= set(node.attrs)
    assert group.attrs["encoding-type"] == "gradstore"


def test_a_row_that_was_never_written_looks_missing_to_zarr(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "s", manifest_of(), example_batches([f"x{row}" for row in range(11)]))
    group = zarr.open_group(str(store.folder), mode="r", zarr_format=3)
    assert all(np.isnan(_read(group, array.name)).all() for array in arrays(store.manifest))


def test_rows_behind_the_last_example_are_nan(tmp_path: Path, gradients: np.ndarray[Any, Any]) -> None:
    store = store_of(tmp_path / "s", gradients, shard_rows=4)  # 11 examples: the last shard has 3 rows
    tail = np.fromfile(store.folder / "latents" / "c.1.2.0", dtype="<f4").reshape(4, 5)
    np.testing.assert_array_equal(tail[:3], gradients[1, 8:])
    assert np.isnan(tail[3]).all()


def test_one_shard_is_one_file_in_each_array(tmp_path: Path, gradients: np.ndarray[Any, Any]) -> None:
    store = store_of(tmp_path / "s", gradients, shard_rows=4)
    for array in arrays(store.manifest):
        chunks = [file for file in (store.folder / array.name).iterdir() if file.name != "zarr.json"]
        assert len(chunks) == 2 * 3


def _read(group: zarr.Group, name: str) -> np.ndarray[Any, Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return np.asarray(array[:])
