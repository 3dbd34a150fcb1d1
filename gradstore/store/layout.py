"""Where everything lies in a store's folder. FORMAT.md says the same in MUST and MAY.

Why the Zarr metadata is spelled out here instead of left to zarr-python: a store's bytes must not depend on the
version of zarr that made it, every file must be synced before the next one relies on it, and importing zarr costs
a worker .7 s. A test holds these documents against those that zarr itself writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradstore.store.files import is_temporary
from gradstore.store.manifest import Manifest, json_text

MANIFEST = "manifest.json"
EXAMPLES = "examples.parquet"
COMMITS = "commits"

# What else a run keeps in the same folder; a store may be created beside it. Compared up to the first dot.
COMPANIONS = frozenset({"build", "checkpoints"})

_ENCODING_VERSION = "1"


@dataclass(frozen=True)
class ArrayLayout:
    """One array: [checkpoint, example] or [checkpoint, example, width], one file a shard.

    The dimension's name of the width (`d_sketch`, `d_latent`) is also the manifest's field that gives its size.
    """

    name: str
    dtype: str
    width: str | None
    encoding: str
    description: str

    @property
    def dimensions(self) -> tuple[str, ...]:
        return ("checkpoint", "example", *([self.width] if self.width else []))

    def row_shape(self, manifest: Manifest) -> tuple[int, ...]:
        return (int(getattr(manifest, self.width)),) if self.width else ()

    def file_name(self, checkpoint: int, shard: int) -> str:
        """The chunk's file, relative to the store: Zarr's key, dots between the coordinates."""
        return f"{self.name}/c.{checkpoint}.{shard}" + (".0" if self.width else "")

    def metadata(self, manifest: Manifest) -> dict[str, Any]:
        """The array's zarr.json (Zarr v3 core specification)."""
        row = list(self.row_shape(manifest))
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [manifest.n_checkpoints, manifest.n_examples, *row],
            "data_type": "float16" if self.dtype == "<f2" else "float32",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, manifest.shard_rows, *row]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "fill_value": "NaN",
            "dimension_names": list(self.dimensions),
            "attributes": _attributes(self.encoding, self.description),
            "storage_transformers": [],
        }


SKETCHES = ArrayLayout(
    "sketches", "<f2", "d_sketch", "gradient-sketches", "gradient sketches, each divided by its exact gradient norm"
)
NORMS = ArrayLayout("norms", "<f4", None, "gradient-norms", "exact gradient norms over the tracked parameters")
LOSSES = ArrayLayout("losses", "<f4", None, "losses", "loss of each example at each checkpoint")
LATENTS = ArrayLayout("latents", "<f4", "d_latent", "latents", "latent of each example at each checkpoint")
ARRAYS = (SKETCHES, NORMS, LOSSES, LATENTS)


def metadata_files(manifest: Manifest) -> dict[str, str]:
    """Every zarr.json of a store: relative path -> text."""
    arrays = {array.name: array.metadata(manifest) for array in ARRAYS}
    root = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": _attributes("gradstore", "gradient store"),
        # So that Zarr lists the arrays from here, without warning that the other files are none of its own.
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": arrays},
    }
    return {"zarr.json": json_text(root), **{f"{name}/zarr.json": json_text(arrays[name]) for name in arrays}}


def describes_same(file: Path, expected: str) -> bool:
    """Whether this zarr.json says what `expected` says; the description's wording is free."""
    try:
        return bool(_without_wording(json.loads(file.read_bytes())) == _without_wording(json.loads(expected)))
    except (FileNotFoundError, ValueError):
        return False


def shard_files(checkpoint: int, shard: int) -> list[str]:
    """The files that one unit of work writes, relative to the store."""
    return [array.file_name(checkpoint, shard) for array in ARRAYS]


def shard_range(manifest: Manifest, shard: int) -> range:
    """The examples of a shard."""
    start = shard * manifest.shard_rows
    return range(start, min(start + manifest.shard_rows, manifest.n_examples))


def split_at_shards(manifest: Manifest, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """(shard, start, stop) of the pieces of a range of examples, none crossing a shard."""
    rows = manifest.shard_rows
    shards = range(start // rows, -(-stop // rows)) if start < stop else range(0)
    for shard in shards:
        yield shard, max(start, shard * rows), min(stop, (shard + 1) * rows)


def folders(root: Path) -> list[Path]:
    """The folders in which a store keeps files of its own."""
    return [root, root / COMMITS, *(root / array.name for array in ARRAYS)]


def may_precede_store(name: str) -> bool:
    """Whether a file of this name, relative to the folder, may be there before the store exists."""
    own = {"zarr.json", EXAMPLES, COMMITS, *(array.name for array in ARRAYS)}
    return name in own or is_temporary(Path(name).name) or name.split(".", 1)[0] in COMPANIONS


def _without_wording(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    return {key: _without_wording(value) for key, value in node.items() if key != "description"}


def _attributes(encoding: str, description: str) -> dict[str, str]:
    return {"encoding-type": encoding, "encoding-version": _ENCODING_VERSION, "description": description}
