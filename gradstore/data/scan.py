"""One streaming pass over a data set: what it is (content hash), its statistics, and that it can be used.

The hash depends on rows, ids, labels and class names, not on format, file names or block size: the same examples
in a `.npy` file and in an IDX file are the same data.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from gradstore.data.identity import id_keys, refuse_duplicate_keys
from gradstore.data.moments import Moments
from gradstore.data.source import ExampleSource
from gradstore.errors import NonFiniteDataError

_BLOCK_BYTES = 4 << 20
_NAMED = 10
_ARRAYS = ("feature_mean", "feature_std")


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """What `scan` found, in the units that a Task sees (bytes are 0..1)."""

    content_hash: str
    """BLAKE2b over rows, ids, labels and class names."""
    n_examples: int
    example_shape: tuple[int, ...]
    dtype: str
    """What the source gives out: uint8, float32 or int64."""
    n_classes: int | None
    """None without labels."""
    minimum: float
    maximum: float
    mean: float
    std: float
    feature_mean: Float[np.ndarray, "..."] | None = field(default=None, compare=False, repr=False)
    """[*example_shape] float32; None when read from JSON."""
    feature_std: Float[np.ndarray, "..."] | None = field(default=None, compare=False, repr=False)
    """[*example_shape] float32, population deviation; exactly 0 where all examples agree; None from JSON."""

    def to_json(self) -> dict[str, Any]:
        """All but the two arrays."""
        plain = {name: value for name, value in asdict(self).items() if name not in _ARRAYS}
        return {**plain, "example_shape": list(self.example_shape)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DataSummary:
        """The inverse of `to_json`; unknown keys, from a later version, do not matter."""
        known = {f.name: values[f.name] for f in fields(cls) if f.name not in _ARRAYS}
        return cls(**{**known, "example_shape": tuple(known["example_shape"])})


def scan(
    source: ExampleSource,
    progress: Callable[[int], None] | None = None,
    *,
    block_bytes: int = _BLOCK_BYTES,
) -> DataSummary:
    """Read every example once.

    Args:
        source: the data set.
        progress: called with the number of examples read since its last call.
        block_bytes: memory for one block in float64.

    Raises:
        NonFiniteDataError: NaN or infinity, with the ids of the first examples that have it.
        SourceError: two examples have the same id.
    """
    moments, content, finite = Moments(source.example_shape), _Content(source), _Finite()
    keys = np.empty(len(source), dtype=np.uint64)
    for block in _blocks(source, block_bytes):
        rows, ids = source.rows(block), source.ids(block)
        keys[block] = id_keys(ids)
        content.add(rows, ids, source.labels(block))
        if finite.check(rows, ids):
            moments.add(rows)
        if progress is not None:
            progress(len(rows))
    finite.require(source)
    refuse_duplicate_keys(source, keys)
    return _summary(source, moments, content.hexdigest())


def _blocks(source: ExampleSource, block_bytes: int) -> Iterator[slice]:
    step = max(1, block_bytes // (8 * math.prod(source.example_shape)))
    return (slice(start, min(start + step, len(source))) for start in range(0, len(source), step))


def _summary(source: ExampleSource, moments: Moments, content_hash: str) -> DataSummary:
    unit = 1 / 255 if source.dtype == np.uint8 else 1.0
    names = source.label_names
    return DataSummary(
        content_hash=content_hash,
        n_examples=len(source),
        example_shape=source.example_shape,
        dtype=source.dtype.name,
        n_classes=None if names is None else len(names),
        minimum=moments.minimum * unit,
        maximum=moments.maximum * unit,
        mean=moments.mean * unit,
        std=moments.std * unit,
        feature_mean=(moments.feature_mean * unit).astype(np.float32),
        feature_std=(moments.feature_std * unit).astype(np.float32),
    )


class _Content:
    """Rows, ids and labels are hashed apart, each in order: blocks of any size make the same three streams."""

    def __init__(self, source: ExampleSource) -> None:
        shape, names = list(source.example_shape), source.label_names
        self._head = json.dumps([len(source), shape, source.dtype.name, names]).encode()
        self._rows, self._ids, self._labels = hashlib.blake2b(), hashlib.blake2b(), hashlib.blake2b()

    def add(
        self, rows: Shaped[np.ndarray, "row ..."], ids: list[str], labels: Shaped[np.ndarray, " row"] | None
    ) -> None:
        self._rows.update(_bytes(rows))
        encoded = [name.encode() for name in ids]
        self._ids.update(b"".join(len(name).to_bytes(4, "little") + name for name in encoded))
        if labels is not None:
            self._labels.update(_bytes(labels))

    def hexdigest(self) -> str:
        parts = [self._rows.digest(), self._ids.digest(), self._labels.digest()]
        return hashlib.blake2b(b"".join([*parts, self._head]), digest_size=32).hexdigest()


def _bytes(values: Shaped[np.ndarray, "..."]) -> bytes:
    """Little-endian, in C order: the same on every machine."""
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


class _Finite:
    """Counts examples with NaN or infinity and keeps the first ids."""

    def __init__(self) -> None:
        self._count, self._ids = 0, list[str]()

    def check(self, rows: Shaped[np.ndarray, "row ..."], ids: list[str]) -> bool:
        """Whether every example so far is finite."""
        if rows.dtype.kind == "f":
            bad = np.flatnonzero(~np.isfinite(rows).all(axis=tuple(range(1, rows.ndim))))
            self._count += len(bad)
            self._ids += [ids[row] for row in bad[: _NAMED - len(self._ids)]]
        return self._count == 0

    def require(self, source: ExampleSource) -> None:
        if self._count:
            named = ", ".join(f"'{name}'" for name in self._ids)
            raise NonFiniteDataError(
                f"{self._count:,} of {len(source):,} examples hold NaN, infinity or values beyond float32; the first "
                f"ids: {named}. Expected finite numbers: repair these examples or leave them out."
            )
