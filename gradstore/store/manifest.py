"""The manifest: what a store holds, everything that determines its bytes, and how it was made.

Why settings and provenance are apart: a build may be resumed only when it would give the same bytes, and only
then. What changes bytes (data, weights, parameters, projection, seed) is `settings` and is compared; what does not
(package versions, the command, coverage) is `provenance` and is kept for the reader.

Why a manifest knows its own format version: a store of an older format is read, and finished, as what it is. Its
manifest and its commit records keep their version and their fingerprint, byte for byte.

Why a checkpoint has a fingerprint of its own: a row depends on its example and on what its checkpoint's rows are made
by, not on how many others there are. Examples and checkpoints may be appended, and every record stays true.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from gradstore.errors import ShapeError, StoreFormatError
from gradstore.store.sealed import json_text, require_sealed, sealed

FORMAT_VERSION = 3
SketchDtype = Literal["float16", "float32", "int8"]
SKETCH_DTYPES: tuple[SketchDtype, ...] = get_args(SketchDtype)

_FORMAT_NAME = "gradstore"
_NOT_IDENTITY = frozenset({"provenance", "examples_sha256", "format_version", "sharded"})
# What a format did not know yet, and the value that says what its stores are.
_SINCE = {2: ("parameter_sets", "layers", "n_draws"), 3: ("sketch_dtype", "n_classes", "sharded")}
_BEFORE_3: dict[str, Any] = {"sketch_dtype": "float16", "n_classes": None, "sharded": False}
_SEALED_SINCE = 3
# Of the fields and of the plan: what the rows of every checkpoint are made by, and what those of one are.
_OF_ROWS = ("d_sketch", "d_latent", "shard_rows", "parameter_sets", "layers", "n_draws", "sketch_dtype", "n_classes")
_OF_CHECKPOINTS = ("checkpoints", "projections")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `manifest.json` says. Mappings hold JSON values only; tuples in them become lists."""

    n_examples: int
    """N, rows of every array"""
    d_sketch: int
    """k, length of a sketch"""
    d_latent: int
    """d, length of a latent"""
    shard_rows: int
    """R, rows of one checkpoint that one unit of work writes"""
    learning_rates: tuple[float, ...]
    """eta_t, one a checkpoint; their count is the number of checkpoints"""
    label_names: tuple[str, ...] | None
    """name of class 0, 1, …; None without labels"""
    settings: Mapping[str, Any]
    """everything that determines the bytes"""
    provenance: Mapping[str, Any]
    """how the store was made; not part of its identity"""
    parameter_sets: tuple[str, ...]
    """name of each set of tracked parameters that gradients were taken of, the default one first"""
    layers: Mapping[str, tuple[str, ...]] | None = None
    """names of each set's layers, the columns of its layer norms; None where those are not kept"""
    n_draws: int = 1
    """Monte Carlo draws that each gradient is the mean of; with more than one, draw norms are kept"""
    sketch_dtype: SketchDtype = "float16"
    """of the stored sketches; with int8 a scale a row is kept"""
    n_classes: int | None = None
    """width of the predictions; None where those are not kept"""
    sharded: bool = False
    """whether a shard's file has an index and checksums within, as suits object stores; changes no row"""
    format_version: int = FORMAT_VERSION
    """of the store's files"""
    examples_sha256: str | None = None
    """hash of examples.parquet, filled in by `Store.create`"""

    def __post_init__(self) -> None:
        for name in ("n_examples", "d_sketch", "d_latent", "shard_rows", "n_draws"):
            if getattr(self, name) < 1:
                raise ShapeError(f"A store needs {name} of at least 1, got {getattr(self, name)}.")
        if not self.learning_rates:
            raise ShapeError("A store needs one learning rate a checkpoint, got none. Pass at least one checkpoint.")
        self._check_sets()
        self._check_kept()
        # The same values before and after a round trip, so that a manifest equals its file.
        object.__setattr__(self, "learning_rates", tuple(float(rate) for rate in self.learning_rates))
        object.__setattr__(self, "settings", _as_json(self.settings))
        object.__setattr__(self, "provenance", _as_json(self.provenance))
        if self.layers is not None:
            object.__setattr__(self, "layers", {name: tuple(layers) for name, layers in self.layers.items()})

    def _check_sets(self) -> None:
        if not self.parameter_sets or len(set(self.parameter_sets)) < len(self.parameter_sets):
            raise ShapeError(
                f"A store needs sets of parameters with names of their own, got {list(self.parameter_sets)}."
            )
        if self.layers is not None and (set(self.layers) != set(self.parameter_sets) or not all(self.layers.values())):
            raise ShapeError(
                f"A store that keeps layer norms needs the layers of each of {', '.join(self.parameter_sets)}; "
                f"got {dict(self.layers)}."
            )

    def _check_kept(self) -> None:
        if self.sketch_dtype not in SKETCH_DTYPES:
            raise ShapeError(f"A store keeps sketches as {', '.join(SKETCH_DTYPES)}, not as {self.sketch_dtype!r}.")
        if self.n_classes is not None and self.n_classes < 1:
            raise ShapeError(f"A store of predictions needs n_classes of at least 1, got {self.n_classes}.")

    @property
    def n_checkpoints(self) -> int:
        return len(self.learning_rates)

    @property
    def n_shards(self) -> int:
        """Shards of one checkpoint."""
        return -(-self.n_examples // self.shard_rows)

    def identity(self) -> dict[str, Any]:
        """What two builds must share to write into one store, as JSON values.

        Where a store is what those of format 2 were, in its words: a build that began there goes on here.
        """
        values = {name: value for name, value in self._values().items() if name not in _NOT_IDENTITY}
        return {name: v for name, v in values.items() if name not in _BEFORE_3 or v != _BEFORE_3[name]}

    def fingerprint(self, checkpoint: int) -> str:
        """Hash of all that makes the rows of a checkpoint, kept in its commit records.

        It names neither other examples nor other checkpoints: appending leaves it valid. (In formats 1 and 2 it is
        the hash of the whole identity.)
        """
        made_by = self._made_by(checkpoint) if self.format_version >= 3 else self.identity()
        return hashlib.sha256(json_text(made_by).encode()).hexdigest()

    def _made_by(self, checkpoint: int) -> dict[str, Any]:
        plan: Mapping[str, Any] = self.settings.get("plan", self.settings)
        weights = [held["sha256"] for held in plan.get("checkpoints", ())]  # wherever their file lies
        of_one = {"weights": weights, "projection": plan.get("projections", ())}
        return {
            **{name: value for name, value in self._values().items() if name in _OF_ROWS},
            "plan": {name: value for name, value in plan.items() if name not in _OF_CHECKPOINTS},
            "checkpoint": {name: values[checkpoint] for name, values in of_one.items() if values},
        }

    def to_json(self) -> str:
        """The text of `manifest.json`: sorted keys, its own hash; the same manifest gives the same bytes."""
        document = {"format": _FORMAT_NAME, **self._values()}
        return sealed(document) if self.format_version >= _SEALED_SINCE else json_text(document)

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        """Read a manifest; keys that this version does not know are ignored.

        Raises:
            StoreFormatError: not a manifest, or of a newer format.
            StoreCorruptError: not as it was written.
        """
        values = _parse(text)
        values["learning_rates"] = tuple(values["learning_rates"])
        values["label_names"] = None if values["label_names"] is None else tuple(values["label_names"])
        values["parameter_sets"] = tuple(values["parameter_sets"])
        return cls(**values)

    def _values(self) -> dict[str, Any]:
        """As JSON, without what the store's own format does not know."""
        unknown = {name for since, names in _SINCE.items() if since > self.format_version for name in names}
        return _as_json({field.name: getattr(self, field.name) for field in fields(self) if field.name not in unknown})


def _as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(json_text(value))
    return parsed


def _parse(text: str | bytes) -> dict[str, Any]:
    try:
        text = text.decode() if isinstance(text, bytes) else text
        document = json.loads(text)
    except ValueError as error:
        raise StoreFormatError(f"manifest.json is not JSON ({error}). Restore it, or build the store anew.") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT_NAME:
        raise StoreFormatError('manifest.json is not a gradstore manifest: it lacks "format": "gradstore".')
    version = document.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise StoreFormatError(
            f"The store has format {version}; this gradstore reads formats 1 to {FORMAT_VERSION}. Upgrade gradstore."
        )
    if version >= _SEALED_SINCE or "sha256" in document:  # whatever the version has become of a flipped bit
        return _known_fields(require_sealed(text, "manifest.json"))
    return _known_fields({**document, **_BEFORE_3, **(_added_since_1(document) if version == 1 else {})})


def _added_since_1(document: Mapping[str, Any]) -> dict[str, Any]:
    """What a store of format 1 is in today's words: one set of parameters, and nothing kept of layers and draws."""
    try:
        name = document["settings"]["plan"]["parameters"]
    except (KeyError, TypeError) as error:
        raise StoreFormatError(
            "manifest.json lacks settings.plan.parameters. Restore it, or build the store anew."
        ) from error
    return {"parameter_sets": [name], "layers": None, "n_draws": 1}


def _known_fields(document: Mapping[str, Any]) -> dict[str, Any]:
    names = [field.name for field in fields(Manifest)]
    missing = [name for name in names if name not in document]
    if missing:
        raise StoreFormatError(f"manifest.json lacks {', '.join(missing)}. Restore it, or build the store anew.")
    return {name: document[name] for name in names}
