"""Where everything lies in a store's folder. FORMAT.md says the same in MUST and MAY.

A store has one array of each kind, and one for each set of parameters where the kind belongs to a set. The first
set's arrays carry the kind's plain name, further sets' a number after it: `norms`, `norms-1`, `norms-2`. So a store
of one set looks as stores have always looked.

Why the Zarr metadata is spelled out here instead of left to zarr-python: a store's bytes must not depend on the
version of zarr that made it, every file must be synced before the next one relies on it, and importing zarr costs
a worker .7 s. A test holds these documents against those that zarr itself writes.
"""

from __future__ import annotations

import json
import math
import re
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
class Kind:
    """What the numbers of an array are: one, or a row of them, an example and checkpoint."""

    name: str
    dtype: str
    width: str | None
    """the dimension of a row's numbers"""
    encoding: str
    description: str
    of_set: bool
    """whether every set of parameters has its own"""


SKETCHES = Kind(
    "sketches",
    "<f2",
    "d_sketch",
    "gradient-sketches",
    "gradient sketches, each divided by its exact gradient norm",
    of_set=True,
)
NORMS = Kind("norms", "<f4", None, "gradient-norms", "exact gradient norms over the tracked parameters", of_set=True)
LAYER_NORMS = Kind(
    "layer_norms", "<f4", "layer", "gradient-layer-norms", "exact gradient norms over each layer", of_set=True
)
DRAW_NORMS = Kind(
    "draw_norms",
    "<f4",
    None,
    "gradient-draw-norms",
    "root of the mean over the Monte Carlo draws of each draw's squared gradient norm",
    of_set=True,
)
LOSSES = Kind("losses", "<f4", None, "losses", "loss of each example at each checkpoint", of_set=False)
LATENTS = Kind("latents", "<f4", "d_latent", "latents", "latent of each example at each checkpoint", of_set=False)
KINDS = (SKETCHES, NORMS, LAYER_NORMS, DRAW_NORMS, LOSSES, LATENTS)

_ARRAY_NAME = re.compile(rf"({'|'.join(kind.name for kind in KINDS)})(-[1-9]\d*)?")


@dataclass(frozen=True)
class ArrayLayout:
    """One array of a store: [checkpoint, example] or [checkpoint, example, width], one file a shard."""

    kind: Kind
    name: str
    parameters: str | None
    """the set of parameters it belongs to, by its name; None for what all sets share"""
    row_shape: tuple[int, ...]

    @property
    def dtype(self) -> str:
        return self.kind.dtype

    @property
    def dimensions(self) -> tuple[str, ...]:
        return ("checkpoint", "example", *([self.kind.width] if self.kind.width else []))

    @property
    def row_bytes(self) -> int:
        return int(self.dtype[-1]) * math.prod(self.row_shape)

    def file_name(self, checkpoint: int, shard: int) -> str:
        """The chunk's file, relative to the store: Zarr's key, dots between the coordinates."""
        return f"{self.name}/c.{checkpoint}.{shard}" + (".0" if self.row_shape else "")

    def metadata(self, manifest: Manifest) -> dict[str, Any]:
        """The array's zarr.json (Zarr v3 core specification)."""
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [manifest.n_checkpoints, manifest.n_examples, *self.row_shape],
            "data_type": "float16" if self.dtype == "<f2" else "float32",
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [1, manifest.shard_rows, *self.row_shape]},
            },
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "fill_value": "NaN",
            "dimension_names": list(self.dimensions),
            "attributes": {**_attributes(self.kind.encoding, self.kind.description), **self._of_set(manifest)},
            "storage_transformers": [],
        }

    def _of_set(self, manifest: Manifest) -> dict[str, Any]:
        """Attributes that tell sets apart, and what the columns of layer norms are."""
        named = {"parameters": self.parameters} if self.parameters and len(manifest.parameter_sets) > 1 else {}
        layers = {"layers": list(_layers(manifest, self.parameters))} if self.kind is LAYER_NORMS else {}
        return {**named, **layers}


def arrays(manifest: Manifest) -> list[ArrayLayout]:
    """Every array of a store: those of each set of parameters, then those that all sets share."""
    of_sets = [array_of(manifest, kind, name) for name in manifest.parameter_sets for kind in kinds_of_sets(manifest)]
    return [*of_sets, *(array_of(manifest, kind) for kind in KINDS if not kind.of_set)]


def kinds_of_sets(manifest: Manifest) -> list[Kind]:
    """The kinds that this store keeps of each of its sets."""
    layer_norms = [LAYER_NORMS] if manifest.layers is not None else []
    return [SKETCHES, NORMS, *layer_norms, *([DRAW_NORMS] if manifest.n_draws > 1 else [])]


def array_of(manifest: Manifest, kind: Kind, parameters: str | None = None) -> ArrayLayout:
    """The array of a kind; `parameters` names the set that it belongs to, where it belongs to one."""
    name = kind.name if parameters is None else kind.name + set_suffix(manifest, parameters)
    return ArrayLayout(kind, name, parameters, _row_shape(manifest, kind, parameters))


def set_suffix(manifest: Manifest, parameters: str) -> str:
    """What is put after a name to tell this set's file or array from the first set's: nothing, `-1`, `-2`, …"""
    number = manifest.parameter_sets.index(parameters)
    return f"-{number}" if number else ""


def metadata_files(manifest: Manifest) -> dict[str, str]:
    """Every zarr.json of a store: relative path -> text."""
    found = {array.name: array.metadata(manifest) for array in arrays(manifest)}
    root = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": _attributes("gradstore", "gradient store"),
        # So that Zarr lists the arrays from here, without warning that the other files are none of its own.
        "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": found},
    }
    return {"zarr.json": json_text(root), **{f"{name}/zarr.json": json_text(found[name]) for name in found}}


def describes_same(file: Path, expected: str) -> bool:
    """Whether this zarr.json says what `expected` says; the description's wording is free."""
    try:
        return bool(_without_wording(json.loads(file.read_bytes())) == _without_wording(json.loads(expected)))
    except (FileNotFoundError, ValueError):
        return False


def shard_files(manifest: Manifest, checkpoint: int, shard: int) -> list[str]:
    """The files that one unit of work writes, relative to the store."""
    return [array.file_name(checkpoint, shard) for array in arrays(manifest)]


def shard_bytes(manifest: Manifest) -> int:
    """What those files take together."""
    return manifest.shard_rows * sum(array.row_bytes for array in arrays(manifest))


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


def folders(root: Path, manifest: Manifest) -> list[Path]:
    """The folders in which a store keeps files of its own."""
    return [root, root / COMMITS, *(root / array.name for array in arrays(manifest))]


def may_precede_store(name: str) -> bool:
    """Whether a file of this name, relative to the folder, may be there before the store exists."""
    own = name in {"zarr.json", EXAMPLES, COMMITS} or _ARRAY_NAME.fullmatch(name) is not None
    return own or is_temporary(Path(name).name) or name.split(".", 1)[0] in COMPANIONS


def _row_shape(manifest: Manifest, kind: Kind, parameters: str | None) -> tuple[int, ...]:
    if kind.width is None:
        return ()
    widths = {"d_sketch": manifest.d_sketch, "d_latent": manifest.d_latent}
    return (widths[kind.width] if kind.width in widths else len(_layers(manifest, parameters)),)


def _layers(manifest: Manifest, parameters: str | None) -> tuple[str, ...]:
    return (manifest.layers or {}).get(parameters or "", ())


def _without_wording(node: Any) -> Any:
    if not isinstance(node, dict):
        return node
    return {key: _without_wording(value) for key, value in node.items() if key != "description"}


def _attributes(encoding: str, description: str) -> dict[str, str]:
    return {"encoding-type": encoding, "encoding-version": _ENCODING_VERSION, "description": description}
