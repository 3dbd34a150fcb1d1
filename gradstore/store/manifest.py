"""The manifest: what a store holds, everything that determines its bytes, and how it was made.

Why settings and provenance are apart: a build may be resumed only when it would give the same bytes, and only
then. What changes bytes (data, weights, parameters, projection, seed) is `settings` and is compared; what does not
(package versions, the command, coverage) is `provenance` and is kept for the reader.

Why a manifest knows its own format version: a store of an older format is read, and finished, as what it is. Its
manifest and its commit records keep their version and their fingerprint, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from gradstore.errors import ShapeError, StoreFormatError

FORMAT_VERSION = 2

_FORMAT_NAME = "gradstore"
_NOT_IDENTITY = frozenset({"provenance", "examples_sha256", "format_version"})
_SINCE_2 = ("parameter_sets", "layers", "n_draws")
_ABSENT = object()
_LONGEST_VALUE = 120


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

    @property
    def n_checkpoints(self) -> int:
        return len(self.learning_rates)

    @property
    def n_shards(self) -> int:
        """Shards of one checkpoint."""
        return -(-self.n_examples // self.shard_rows)

    def identity(self) -> dict[str, Any]:
        """What two builds must share to write into one store, as JSON values."""
        return {name: value for name, value in self._values().items() if name not in _NOT_IDENTITY}

    def fingerprint(self) -> str:
        """Hash of the identity, kept in every commit record."""
        return hashlib.sha256(json_text(self.identity()).encode()).hexdigest()

    def to_json(self) -> str:
        """The text of `manifest.json`: sorted keys, the same manifest gives the same bytes."""
        return json_text({"format": _FORMAT_NAME, **self._values()})

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest; keys that this version does not know are ignored.

        Raises:
            StoreFormatError: not a manifest, or of a newer format.
        """
        values = _parse(text)
        values["learning_rates"] = tuple(values["learning_rates"])
        values["label_names"] = None if values["label_names"] is None else tuple(values["label_names"])
        values["parameter_sets"] = tuple(values["parameter_sets"])
        return cls(**values)

    def _values(self) -> dict[str, Any]:
        """As JSON, without what the store's own format does not know."""
        unknown = _SINCE_2 if self.format_version < 2 else ()
        return _as_json({field.name: getattr(self, field.name) for field in fields(self) if field.name not in unknown})


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """One line a value that differs between what a store has (`a`) and what a run asks for (`b`).

    >>> differences({"seed": 0, "projection": {"d": 512}}, {"seed": 0, "projection": {"d": 1024}})
    ['projection.d: store has 512; this run asks for 1024']
    """
    return [
        f"{name}: store has {_shown(mine)}; this run asks for {_shown(theirs)}"
        for name, mine, theirs in _differing("", a, b)
    ]


def json_text(value: Mapping[str, Any]) -> str:
    """JSON with sorted keys and a final newline; NaN and infinity are refused, for JSON has none."""
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _differing(name: str, a: Any, b: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            yield from _differing(f"{name}.{key}".lstrip("."), a.get(key, _ABSENT), b.get(key, _ABSENT))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for position, (mine, theirs) in enumerate(zip(a, b, strict=True)):
            yield from _differing(f"{name}.{position}", mine, theirs)
    elif a != b:
        yield name, a, b


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "no such setting"
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= _LONGEST_VALUE:
        return text
    size = f" ({len(value)} values)" if isinstance(value, list) else ""
    return f"{text[:_LONGEST_VALUE]}…{size}"


def _as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(json_text(value))
    return parsed


def _parse(text: str) -> dict[str, Any]:
    try:
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
    return _known_fields(document | _added_since_1(document) if version == 1 else document)


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
