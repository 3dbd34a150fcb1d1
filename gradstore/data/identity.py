"""Ids name examples for good, so no two may be equal; checked with eight bytes of memory an example."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from gradstore.data.source import ExampleSource
from gradstore.errors import SourceError

_BLOCK = 4096
_NAMED = 10


def id_keys(ids: Iterable[str]) -> NDArray[np.uint64]:
    """64-bit hashes of ids."""
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8).digest() for name in ids)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def refuse_duplicate_ids(source: ExampleSource) -> None:
    """Read all ids once.

    Raises:
        SourceError: two examples have the same id.
    """
    blocks = [id_keys(source.ids(slice(start, start + _BLOCK))) for start in range(0, len(source), _BLOCK)]
    refuse_duplicate_keys(source, np.concatenate(blocks))


def refuse_duplicate_keys(source: ExampleSource, keys: NDArray[np.uint64]) -> None:
    """The same, for whoever has the hashes of all ids at hand: only ids whose hashes meet are read again."""
    order = np.argsort(keys, kind="stable")
    meets = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    duplicates = _equal_ids(source, order[meets], order[meets + 1])
    if duplicates:
        raise SourceError(
            f"{len(duplicates):,} pairs of examples have the same id: {'; '.join(duplicates[:_NAMED])}"
            f"{'; …' if len(duplicates) > _NAMED else ''}. Expected ids that differ: rename or remove those examples."
        )


def _equal_ids(source: ExampleSource, first: NDArray[np.int64], second: NDArray[np.int64]) -> list[str]:
    pairs = zip(source.ids(first), source.ids(second), first.tolist(), second.tolist(), strict=True)
    return [f"'{a}' (rows {i} and {j})" for a, b, i, j in pairs if a == b]
