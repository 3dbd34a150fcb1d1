"""The Zarr metadata of a store: every zarr.json, byte for byte (Zarr v3 core specification).

Why it is spelled out here instead of left to zarr-python: a store's bytes must not depend on the version of zarr
that made it, every file must be synced before the next one relies on it, and importing zarr costs a worker .7 s. A
test holds these documents against those that zarr itself writes. They are part of the format: since format 3 a
zarr.json is these bytes and no others, so that not even a word of it can change unseen.
"""

from __future__ import annotations

import json
import math
from typing import Any

from gradstore.store.kinds import LAYER_NORMS, SCALES, SKETCHES
from gradstore.store.layout import ArrayLayout, array_of, arrays, layers_of
from gradstore.store.manifest import Manifest
from gradstore.store.sealed import json_text

_ENCODING_VERSION = "1"
_DTYPES = {"<f2": "float16", "<f4": "float32", "|i1": "int8"}


def metadata_files(manifest: Manifest) -> dict[str, str]:
    """Every zarr.json of a store: relative path -> text."""
    found = {array.name: _array(array, manifest) for array in arrays(manifest)}
    root = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": _attributes("gradstore", "gradient store"),
        # So that Zarr lists the arrays from here, without warning that the other files are none of its own.
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": found},
    }
    return {"zarr.json": json_text(root), **{f"{name}/zarr.json": json_text(found[name]) for name in found}}


def is_metadata(manifest: Manifest, found: bytes, expected: str) -> bool:
    """Whether these bytes are the zarr.json of which `metadata_files` gives the text.

    Since format 3 they are the same; before, the wording of descriptions was free.
    """
    if manifest.format_version >= 3:
        return found == expected.encode()
    try:
        return bool(_without_wording(json.loads(found)) == _without_wording(json.loads(expected)))
    except ValueError:
        return False


def _array(array: ArrayLayout, manifest: Manifest) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [manifest.n_checkpoints, manifest.n_examples, *array.row_shape],
        "data_type": _DTYPES[array.dtype],
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [1, manifest.shard_rows, *array.row_shape]},
        },
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "codecs": _codecs(array, manifest),
        "fill_value": "NaN" if math.isnan(array.missing) else array.missing,
        "dimension_names": list(array.dimensions),
        "attributes": {**_attributes(array.kind.encoding, array.kind.description), **_of_set(array, manifest)},
        "storage_transformers": [],
    }


def _codecs(array: ArrayLayout, manifest: Manifest) -> list[dict[str, Any]]:
    """Raw numbers; in a sharded store in chunks with checksums, found by an index at the end."""
    if not manifest.sharded:
        return [_raw(array.dtype)]
    inner = {
        "chunk_shape": [1, array.sharding(manifest).rows, *array.row_shape],
        "codecs": [_raw(array.dtype), _CRC32C],
        "index_codecs": [_raw("<u8"), _CRC32C],
        "index_location": "end",
    }
    return [{"name": "sharding_indexed", "configuration": inner}]


def _of_set(array: ArrayLayout, manifest: Manifest) -> dict[str, Any]:
    """Attributes that tell sets apart, what the columns of layer norms are, and what int8 sketches are scaled by."""
    named = {"parameters": array.parameters} if array.parameters and len(manifest.parameter_sets) > 1 else {}
    layers = {"layers": list(layers_of(manifest, array.parameters))} if array.kind is LAYER_NORMS else {}
    is_scaled = array.kind is SKETCHES and manifest.sketch_dtype == "int8"
    scales = {"scales": array_of(manifest, SCALES, array.parameters).name} if is_scaled else {}
    return {**named, **layers, **scales}


def _attributes(encoding: str, description: str) -> dict[str, str]:
    return {"encoding-type": encoding, "encoding-version": _ENCODING_VERSION, "description": description}


def _raw(dtype: str) -> dict[str, Any]:
    """The codec of plain numbers; single bytes have no order."""
    return {"name": "bytes", "configuration": {"endian": "little"}} if dtype.startswith("<") else {"name": "bytes"}


_CRC32C = {"name": "crc32c"}


def _without_wording(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    return {key: _without_wording(value) for key, value in node.items() if key != "description"}
