"""Where everything lies in a store's folder. FORMAT.md says the same in MUST and MAY.

A store has one array of each kind, and one for each set of parameters where the kind belongs to a set. The first
set's arrays carry the kind's plain name, further sets' a number after it: `norms`, `norms-1`, `norms-2`. So a store
of one set looks as stores have always looked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from gradstore.store.files import is_temporary
from gradstore.store.kinds import DRAW_NORMS, KINDS, LATENTS, LAYER_NORMS, LOSSES, PREDICTIONS, SCALES, SKETCHES, Kind
from gradstore.store.manifest import Manifest, SketchDtype
from gradstore.store.sharding import Sharding

MANIFEST = "manifest.json"
EXAMPLES = "examples.parquet"
COMMITS = "commits"

# What else a run keeps in the same folder; a store may be created beside it. Compared up to the first dot.
COMPANIONS = frozenset({"build", "checkpoints"})

_SKETCH_DTYPES: dict[SketchDtype, str] = {"float16": "<f2", "float32": "<f4", "int8": "|i1"}
MISSING_INT8 = -128
"""What a row that was never written holds where there is no NaN; no committed row holds it."""

_ARRAY_NAME = re.compile(rf"({'|'.join(kind.name for kind in KINDS)})(-[1-9]\d*)?")


@dataclass(frozen=True)
class ArrayLayout:
    """One array of a store: [checkpoint, example] or [checkpoint, example, width], one file a shard."""

    kind: Kind
    name: str
    parameters: str | None
    """the set of parameters it belongs to, by its name; None for what all sets share"""
    row_shape: tuple[int, ...]
    dtype: str

    @property
    def missing(self) -> float:
        """What rows hold that were never written."""
        return MISSING_INT8 if self.dtype == "|i1" else math.nan

    @property
    def dimensions(self) -> tuple[str, ...]:
        return ("checkpoint", "example", *([self.kind.width] if self.kind.width else []))

    @property
    def row_bytes(self) -> int:
        return int(self.dtype[-1]) * math.prod(self.row_shape)

    def file_name(self, checkpoint: int, shard: int) -> str:
        """The chunk's file, relative to the store: Zarr's key, dots between the coordinates."""
        return f"{self.name}/c.{checkpoint}.{shard}" + (".0" if self.row_shape else "")

    def file_bytes(self, manifest: Manifest) -> int:
        """Of the file of a shard."""
        if manifest.sharded:
            return self.sharding(manifest).file_bytes
        return manifest.shard_rows * self.row_bytes

    def sharding(self, manifest: Manifest) -> Sharding:
        """How a shard's file is cut, where the store is sharded."""
        return Sharding(manifest.shard_rows, self.row_bytes)


def arrays(manifest: Manifest) -> list[ArrayLayout]:
    """Every array of a store: those of each set of parameters, then those that all sets share."""
    of_sets = [array_of(manifest, kind, name) for name in manifest.parameter_sets for kind in kinds_of_sets(manifest)]
    shared = [LOSSES, LATENTS, *([PREDICTIONS] if manifest.n_classes is not None else [])]
    return [*of_sets, *(array_of(manifest, kind) for kind in shared)]


def kinds_of_sets(manifest: Manifest) -> list[Kind]:
    """The kinds that this store keeps of each of its sets."""
    kept = {
        SCALES: manifest.sketch_dtype == "int8",
        LAYER_NORMS: manifest.layers is not None,
        DRAW_NORMS: manifest.n_draws > 1,
    }
    return [kind for kind in KINDS if kind.of_set and kept.get(kind, True)]


def array_of(manifest: Manifest, kind: Kind, parameters: str | None = None) -> ArrayLayout:
    """The array of a kind; `parameters` names the set that it belongs to, where it belongs to one."""
    name = kind.name if parameters is None else kind.name + set_suffix(manifest, parameters)
    dtype = _SKETCH_DTYPES[manifest.sketch_dtype] if kind is SKETCHES else kind.dtype
    return ArrayLayout(kind, name, parameters, _row_shape(manifest, kind, parameters), dtype)


def set_suffix(manifest: Manifest, parameters: str) -> str:
    """What is put after a name to tell this set's file or array from the first set's: nothing, `-1`, `-2`, …"""
    number = manifest.parameter_sets.index(parameters)
    return f"-{number}" if number else ""


def shard_files(manifest: Manifest, checkpoint: int, shard: int) -> list[str]:
    """The files that one unit of work writes, relative to the store."""
    return [array.file_name(checkpoint, shard) for array in arrays(manifest)]


def shard_bytes(manifest: Manifest) -> int:
    """What those files take together."""
    return sum(array.file_bytes(manifest) for array in arrays(manifest))


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


def folders(manifest: Manifest) -> list[str]:
    """The folders in which a store keeps files of its own, relative to it; "" is its own."""
    return ["", COMMITS, *(array.name for array in arrays(manifest))]


def may_precede_store(name: str) -> bool:
    """Whether a file of this name, relative to the folder, may be there before the store exists."""
    own = name in {"zarr.json", EXAMPLES, COMMITS} or _ARRAY_NAME.fullmatch(name) is not None
    return own or is_temporary(name.rsplit("/", 1)[-1]) or name.split(".", 1)[0] in COMPANIONS


def _row_shape(manifest: Manifest, kind: Kind, parameters: str | None) -> tuple[int, ...]:
    if kind.width is None:
        return ()
    widths = {"d_sketch": manifest.d_sketch, "d_latent": manifest.d_latent, "class": manifest.n_classes}
    return (widths.get(kind.width) or len(layers_of(manifest, parameters)),)


def layers_of(manifest: Manifest, parameters: str | None) -> tuple[str, ...]:
    """The columns of a set's layer norms."""
    return (manifest.layers or {}).get(parameters or "", ())
