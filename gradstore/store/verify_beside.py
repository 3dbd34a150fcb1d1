"""What lies beside the rows: weights, what the build remembers, cached signals, indexes, graphs, the forgotten.

All of it says by itself what it must hold, in one of three ways, so that one look serves for what every room keeps:

- A JSON document carries its own hash (`gradstore.store.sealed`); where it has an entry `file` (name, bytes, sha256),
  it vouches for that file beside it as well.
- A Parquet file carries its own hash (`gradstore.store.sealed_table`).
- The plan in the manifest names each checkpoint's hash, and the manifest holds what `build/request.json` says.

A file that nothing vouches for yet is of a run that did not finish, and is no fault. Nothing here is needed to read
the store's rows: what is damaged is removed and made again, but for weights and the list of the forgotten. Beside
stores of formats 1 and 2 lies what did not carry hashes yet.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from gradstore.errors import StoreCorruptError
from gradstore.store.commits import FileHash
from gradstore.store.findings import Finding, Remove, Write
from gradstore.store.forgotten import FORGOTTEN
from gradstore.store.journal import JOURNAL, Journal
from gradstore.store.place import Place, place_of
from gradstore.store.sealed import json_text, require_sealed
from gradstore.store.sealed_table import require_sealed_table
from gradstore.store.store import Store

REQUEST = "build/request.json"
_SEALED = ("build/scan.json", "checkpoints/training.json", JOURNAL)
_SEALED_SINCE = 3
_DERIVED = ("indexes", "graph", "build/run")
_AGAIN = "Remove it: it is made anew when it is needed."


def check_beside(store: Store) -> Iterator[Finding]:
    """All but the store's own arrays and records."""
    yield from _check_weights(store)
    yield from _check_request(store)
    yield from _check_forgotten(store)
    if store.manifest.format_version < _SEALED_SINCE:
        return
    for name in _SEALED:
        yield from _check_document(store.place, name)
    here = place_of(store.folder)
    for name in sorted(here.names()):
        if name.startswith("signals") and name.endswith(".parquet"):
            yield from _check_signals(here, name)
    for folder in _DERIVED:
        yield from _check_derived(here, folder)


def _check_weights(store: Store) -> Iterator[Finding]:
    plan: Mapping[str, Any] = store.manifest.settings.get("plan", {})
    for number, checkpoint in enumerate(plan.get("checkpoints", ())):
        name, expected = str(checkpoint["path"]), checkpoint["sha256"]
        cure = (
            f"It holds the weights of checkpoint {number}: without them queries from outside of the store cannot be "
            "answered. Restore it from a copy."
        )
        try:
            found = _hash_of(store.place, name).sha256
        except FileNotFoundError:
            yield Finding("missing", name, f"{name} is missing. {cure}")
            continue
        if expected not in (None, found):
            yield Finding("damaged", name, f"{name} has SHA-256 {found[:12]}…; {expected[:12]}… was used. {cure}")


def _hash_of(place: Place, name: str) -> FileHash:
    """Of a file of the store, or of one elsewhere by its absolute path."""
    return FileHash.read(Path(name)) if Path(name).is_absolute() else FileHash.held(place, name)


def _check_request(store: Store) -> Iterator[Finding]:
    """What was asked before there was a store: the manifest says the same, or the one that the store shall have."""
    asked = store.manifest.settings.get("request")
    if asked is None or not store.place.exists(REQUEST):
        return
    expected, found = json_text(asked).encode(), store.place.read(REQUEST)
    if found not in (expected, _request_to_be(store)):
        sentence = f"{REQUEST} does not say what the manifest says was asked. Run gradstore verify with --repair."
        yield Finding("damaged", REQUEST, sentence, Write(store.place, REQUEST, expected))


def _request_to_be(store: Store) -> bytes | None:
    """Of the store that an append makes of this one."""
    try:
        journal = Journal.read(store.place)
    except StoreCorruptError:  # reported by itself
        return None
    return None if journal is None else json_text(journal.manifest.settings["request"]).encode()


def _check_forgotten(store: Store) -> Iterator[Finding]:
    """The list's own hash, and that it is of this store's examples."""
    if not store.place.exists(FORGOTTEN):
        return
    try:
        require_sealed_table(io.BytesIO(store.place.read(FORGOTTEN)), FORGOTTEN)
        fault = _fault_of_forgotten(store)
    except StoreCorruptError as error:
        fault = str(error)
    if fault:
        cure = "Restore it from a copy, or delete it and run gradstore forget again with the ids."
        yield Finding("damaged", FORGOTTEN, f"{fault} {cure}")


def _fault_of_forgotten(store: Store) -> str:
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(store.place.read(FORGOTTEN)))
    rows, names = table.column("row").to_numpy(), table.column("id").to_pylist()
    outside = rows[(rows < 0) | (rows >= store.n_examples)]
    if outside.size:
        return f"{FORGOTTEN} names row {outside[0]} of {store.n_examples} examples: it is of another store."
    if store.examples_at(rows).column("id").to_pylist() != names:
        return f"{FORGOTTEN} names other ids than those of its rows: it is of another store."
    return ""


def _check_signals(here: Place, name: str) -> Iterator[Finding]:
    try:
        with _opened(here, name) as stream:
            require_sealed_table(stream, name)
    except StoreCorruptError as error:
        yield Finding("damaged", name, f"{error} {_AGAIN}", Remove(here, name))


def _opened(here: Place, name: str) -> BinaryIO:
    file = here.local(name)
    assert file is not None  # derived files lie on this machine
    return file.open("rb")


def _check_document(place: Place, name: str) -> Iterator[Finding]:
    """A sealed document, and the file that it vouches for, if there is one."""
    if not place.exists(name):
        return
    try:
        document = require_sealed(place.read(name), name)
    except StoreCorruptError:
        sentence = f"{name} is not as it was written: its own hash is of another text. {_AGAIN}"
        yield Finding("damaged", name, sentence, Remove(place, name))
        return
    if document.get("file") is not None:
        yield from _check_vouched(place, name, document["file"])


def _check_vouched(place: Place, record: str, held: Mapping[str, Any]) -> Iterator[Finding]:
    name = f"{record.rpartition('/')[0]}/{held['name']}"
    try:
        found = FileHash.held(place, name)
    except FileNotFoundError:
        yield Finding("missing", name, f"{name} is missing; only {record} is there. {_AGAIN}", Remove(place, record))
        return
    if found != FileHash(held["bytes"], held["sha256"]):
        sentence = f"{name} is not the file that {record} vouches for. Remove {record}: both are made anew when needed."
        yield Finding("damaged", name, sentence, Remove(place, record))


def _check_derived(here: Place, folder: str) -> Iterator[Finding]:
    """Documents of a folder and below it; what none vouches for has not been finished."""
    names = sorted(entry.name for entry in here.entries(folder))
    vouched = set()
    for name in names:
        if name.endswith(".json"):
            yield from _check_document(here, name)
            vouched |= {name, *_vouched_by(here, name)}
    yield from (Finding("leftover", name, "") for name in names if name not in vouched)


def _vouched_by(here: Place, record: str) -> set[str]:
    try:
        held = require_sealed(here.read(record), record).get("file")
    except StoreCorruptError:
        return {record.removesuffix(".json")}
    return set() if held is None else {f"{record.rpartition('/')[0]}/{held['name']}"}
