"""Signals are kept in the store (`signals.parquet`), for computing them reads every row.

The file names the content it was computed from; when any row has changed, or others are forgotten, it is not used, and
neither is a damaged one. Every set of parameters has a file of its own: `signals-1.parquet` is the second's.

Why the file names a hash of source code as well: a version is given to a release, and between two releases a signal may
be defined anew; its old values would then be taken for the new signal's. A changed comment costs a pass over the store,
a stale value a wrong ranking that nobody notices.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

import gradstore
from gradstore.ranking.rank import COMBINED, signal_names
from gradstore.ranking.signals import ALL_SIGNALS, compute_signals, rows_to_read
from gradstore.store import Store
from gradstore.store.files import make_folder, replacing, write_errors
from gradstore.store.kept import KeptRows
from gradstore.store.sealed_table import write_sealed_table

_DEFINING = ("ranking", "ranking/signals", "influence", "search", "sketch/counter.py")
"""Packages, without those within, and single modules: more than signals are computed by, and nothing less."""


def cached_signals(
    store: Store | KeptRows,
    names: Sequence[str] | None,
    by: str = COMBINED,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """[N] values of the named signals (all by default) and of those that `by` needs, computed where missing.

    Args:
        store: or, where something is forgotten, what is left of it (`kept_rows`).
        progress: called with the rows read so far and in all, when there is something to compute.

    Raises:
        StoreIncompleteError: the build has not finished.
        UnknownSignalError: no such signal.
        StoreWriteError: no room to keep them.
    """
    store.require_complete()
    wanted = signal_names(store, names, by)
    known = _read(store, wanted)
    missing = [name for name in wanted if name not in known]
    if missing:
        known = _read(store, list(ALL_SIGNALS))
        advance = _sum_for(progress, rows_to_read(store, missing, list(known)))
        known |= compute_signals(store, missing, advance=advance, known=known)
        _write(store, known)
    return {name: known[name] for name in wanted}


def _sum_for(progress: Callable[[int, int], None] | None, total: int) -> Callable[[int], None] | None:
    if progress is None:
        return None
    done = 0

    def advance(n: int) -> None:
        nonlocal done
        done = min(done + n, total)  # a small store reads a row more than once more
        progress(done, total)

    return advance


def _file(store: Store | KeptRows) -> Path:
    return store.folder / f"signals{store.set_suffix}.parquet"


def _key(store: Store | KeptRows) -> bytes:
    return f"{store.content_fingerprint()} gradstore {gradstore.__version__} {_definition()}".encode()


@functools.cache
def _definition() -> str:
    """A hash of the source that computes signals."""
    package, digest = files(gradstore), hashlib.sha256()
    for name in _DEFINING:
        for module in _modules(package.joinpath(name)):
            source = module.read_bytes()
            digest.update(f"{name}/{module.name} {len(source)}\n".encode() + source)
    return digest.hexdigest()


def _modules(place: Traversable) -> Iterator[Traversable]:
    """Those of a package in order of their names, or the one; none where only compiled code is installed."""
    inside = sorted(place.iterdir(), key=lambda entry: entry.name) if place.is_dir() else [place]
    yield from (entry for entry in inside if entry.name.endswith(".py") and entry.is_file())


def _read(store: Store | KeptRows, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    path = _file(store)
    if not path.is_file():
        return {}
    try:
        schema = pq.read_schema(path)
        if (schema.metadata or {}).get(b"computed_from") != _key(store):
            return {}
        known = [name for name in names if name in schema.names]
        table = pq.read_table(path, columns=known, page_checksum_verification=True)
    except (OSError, pa.ArrowException):
        return {}
    return {name: table.column(name).to_numpy() for name in known}


def _write(store: Store | KeptRows, values: dict[str, NDArray[np.float64]]) -> None:
    path = _file(store)
    table = pa.table({name: pa.array(column) for name, column in values.items()})
    table = table.replace_schema_metadata({"computed_from": _key(store)})
    make_folder(path.parent)  # of a store in a bucket it is one of the cache
    with write_errors(path), replacing(path) as temp, temp.open("w+b") as stream:
        write_sealed_table(table, stream)
