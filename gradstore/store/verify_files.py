"""The store's own files against the hashes that were kept of them.

Which record holds which file's hash: the manifest its own and that of `examples.parquet`, a commit record those of a
shard's files; what a record itself must say is known from the manifest, and what `zarr.json` files say too. So there is
no byte of the store that nothing vouches for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import numpy as np

from gradstore.errors import StoreCorruptError
from gradstore.store import layout
from gradstore.store.commits import CommitRecord, FileHash, record_name
from gradstore.store.files import is_temporary
from gradstore.store.findings import Discard, Finding, Remove, Write
from gradstore.store.journal import append_under_way
from gradstore.store.manifest import Manifest
from gradstore.store.metadata import is_metadata, metadata_files
from gradstore.store.store import Store

_RUN_AGAIN = "Run the same build command again: it writes the file anew."
RESTORE = "Restore it from a copy, or build the store anew at another place."
_NAMED = 5
_IDS_AT_A_TIME = 65_536
_SHARD_FILE = re.compile(r"c\.\d+\.\d+(\.0)?")


def committed(manifest: Manifest, pending: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """(checkpoint, shard) of what is done."""
    not_done = set(pending)
    every = ((c, s) for c in range(manifest.n_checkpoints) for s in range(manifest.n_shards))
    return (unit for unit in every if unit not in not_done)


def check_metadata(store: Store) -> Iterator[Finding]:
    """The zarr.json files."""
    for name, expected in metadata_files(store.manifest).items():
        cure = Write(store.place, name, expected.encode())
        if not store.place.exists(name):
            yield Finding("missing", name, f"{name} is missing: Zarr cannot open the store. {_RUN_AGAIN}", cure)
        elif not is_metadata(store.manifest, store.place.read(name), expected):
            yield Finding("damaged", name, f"{name} does not describe the arrays of the manifest. {_RUN_AGAIN}", cure)


def check_examples(store: Store) -> Iterator[Finding]:
    """Ids, labels and paths: the file's hash, its number of rows, and that no id stands there twice."""
    name = layout.EXAMPLES
    try:
        found = FileHash.held(store.place, name).sha256
    except FileNotFoundError:
        yield Finding("missing", name, f"{name} is missing: rows have no ids. {RESTORE}")
        return
    if found != store.manifest.examples_sha256:
        yield Finding("damaged", name, f"{name} is not the file that the manifest describes. {RESTORE}")
        return
    for sentence in _faults_of_ids(store):
        yield Finding("rows", name, f"{name} {sentence}. {RESTORE}")


def _faults_of_ids(store: Store) -> Iterator[str]:
    """Eight bytes an example; ids whose hashes meet are looked at again."""
    from gradstore.data.identity import id_keys

    starts = range(0, store.n_examples, _IDS_AT_A_TIME)
    names = (store.ids(start, min(start + _IDS_AT_A_TIME, store.n_examples)) for start in starts)
    keys = np.concatenate([id_keys(part) for part in names])
    if len(keys) != store.n_examples:
        yield f"has {len(keys)} rows; the manifest says {store.n_examples}"
        return
    order = np.argsort(keys, kind="stable")
    meets = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    pairs = [(int(order[m]), int(order[m + 1])) for m in meets]
    twice = [(store.ids(i, i + 1)[0], i, j) for i, j in pairs if store.ids(i, i + 1) == store.ids(j, j + 1)]
    if twice:
        shown = ", ".join(f"{name!r} (rows {i} and {j})" for name, i, j in twice[:_NAMED])
        yield f"names {len(twice)} examples twice: {shown}"


def check_shard(store: Store, checkpoint: int, shard: int) -> Iterator[Finding]:
    """A commit record, and every file that it names."""
    record, discard = record_name(checkpoint, shard), Discard(checkpoint, shard)
    cure = f"Delete {record}, then run the same build command again: it writes that shard anew."
    try:
        held = CommitRecord.read(store.place, checkpoint, shard)
    except (FileNotFoundError, StoreCorruptError) as error:
        yield Finding("damaged", record, f"{record}: {error}. {cure}", discard)
        return
    if fault := _fault_of_record(store, held):
        yield Finding("damaged", record, f"{record} {fault}. {cure}", discard)
        return
    for name, expected in held.files.items():
        if fault := _fault_of_file(store, name, expected):
            yield Finding("missing" if fault == _MISSING else "damaged", name, f"{name} {fault}. {cure}", discard)


def _fault_of_record(store: Store, held: CommitRecord) -> str | None:
    span = store.shard_range(held.shard)
    expected_files = layout.shard_files(store.manifest, held.checkpoint, held.shard)
    if held.rows != (span.start, span.stop) or sorted(held.files) != sorted(expected_files):
        return "names other rows or files than the store's layout"
    made_by = store.manifest.fingerprint(held.checkpoint)
    if (held.fingerprint, held.format_version) != (made_by, store.manifest.format_version):
        return (
            f"is of rows made by other settings (fingerprint {held.fingerprint[:12]}, format {held.format_version}) "
            f"than the manifest's ({made_by[:12]}, format {store.manifest.format_version})"
        )
    return None


def _fault_of_file(store: Store, name: str, expected: FileHash) -> str | None:
    try:
        found = FileHash.held(store.place, name)
    except FileNotFoundError:
        return _MISSING
    if found.bytes != expected.bytes:
        return f"has {found.bytes} bytes; {expected.bytes} were committed"
    if found != expected:
        return f"has SHA-256 {found.sha256[:12]}…; {expected.sha256[:12]}… was committed"
    return None


_MISSING = "is committed and missing"


def check_folders(store: Store, pending: Iterable[tuple[int, int]]) -> Iterator[Finding]:
    """Everything in the store's own folders that is neither metadata nor committed."""
    expected = {*metadata_files(store.manifest)}
    for checkpoint, shard in committed(store.manifest, pending):
        expected |= {record_name(checkpoint, shard), *layout.shard_files(store.manifest, checkpoint, shard)}
    unfinished = {name for unit in pending for name in layout.shard_files(store.manifest, *unit)}
    growing = append_under_way(store.place)
    for name in _own_files(store):
        if is_temporary(name.rsplit("/", 1)[-1]) or name in unfinished:
            yield Finding("leftover", name, "")
        elif name not in expected and "/" in name:
            yield _foreign(store, name, growing)


def _foreign(store: Store, name: str, growing: bool) -> Finding:
    """A file of a shard that this store does not have: of an append that has not finished, or of nothing."""
    folder, _, file = name.rpartition("/")
    ours = _SHARD_FILE.fullmatch(file) is not None or folder == layout.COMMITS
    if ours and growing:
        return Finding("leftover", name, "")
    sentence = f"{name} belongs to no shard of this store. Move it elsewhere."
    return Finding("extra", name, sentence, Remove(store.place, name) if ours else None)


def _own_files(store: Store) -> Iterator[str]:
    for folder in layout.folders(store.manifest):
        yield from sorted(store.place.names(folder, folders=folder != ""))
