"""Does the store still hold the bytes that were committed?

Every committed file is read once and hashed, in constant memory. What a killed run left behind is reported and is
no fault: no reader looks at it, and the next build replaces or removes it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from gradstore.errors import StoreCorruptError
from gradstore.store import layout
from gradstore.store.commits import CommitRecord, FileHash, record_name
from gradstore.store.files import is_temporary
from gradstore.store.manifest import Manifest, json_text
from gradstore.store.store import Store

_RUN_AGAIN = "Run the same build command again: it writes the file anew."
_RESTORE = "Restore it from a copy, or build the store anew at another path."


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found. Files are named relative to the store."""

    n_shards: int
    """shards that a finished store has, over all checkpoints"""
    n_committed: int
    """shards that are done"""
    missing: tuple[str, ...]
    """files that must be there and are not"""
    damaged: tuple[str, ...]
    """files whose content is not what was committed"""
    extra: tuple[str, ...]
    """files among the store's own that no store of this shape has"""
    leftovers: tuple[str, ...]
    """what a killed run left: temporary files and files of shards that are not committed; no fault"""
    pending: tuple[tuple[int, int], ...]
    """(checkpoint, shard) of what is not done; no fault"""
    problems: tuple[str, ...]
    """a sentence a fault: what was found, what was expected, what to do"""

    @property
    def ok(self) -> bool:
        """Whether all that is committed is as it was committed."""
        return not self.problems

    def to_json(self) -> str:
        return json_text({"ok": self.ok, **dataclasses.asdict(self)})


@dataclass(frozen=True)
class _Finding:
    kind: Literal["missing", "damaged", "extra", "leftover"]
    file: str
    sentence: str


def verify(store: Store, progress: Callable[[int], None] | None = None) -> VerifyReport:
    """Hash every committed file and look for what is missing, torn or foreign.

    Args:
        progress: called with the number of shards checked so far.
    """
    pending = tuple(store.pending())
    findings = [*_check_metadata(store), *_check_examples(store)]
    committed = _committed(store.manifest, pending)
    for n_checked, (checkpoint, shard) in enumerate(committed, start=1):
        findings += _check_shard(store, checkpoint, shard)
        if progress is not None:
            progress(n_checked)
    findings += _check_folders(store, pending)
    return _report(store.manifest, pending, findings)


def _report(manifest: Manifest, pending: tuple[tuple[int, int], ...], findings: list[_Finding]) -> VerifyReport:
    files = {
        kind: tuple(f.file for f in findings if f.kind == kind) for kind in ("missing", "damaged", "extra", "leftover")
    }
    n_shards = manifest.n_checkpoints * manifest.n_shards
    return VerifyReport(
        n_shards=n_shards,
        n_committed=n_shards - len(pending),
        missing=files["missing"],
        damaged=files["damaged"],
        extra=files["extra"],
        leftovers=files["leftover"],
        pending=pending,
        problems=tuple(f.sentence for f in findings if f.kind != "leftover"),
    )


def _committed(manifest: Manifest, pending: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    not_done = set(pending)
    every = ((c, s) for c in range(manifest.n_checkpoints) for s in range(manifest.n_shards))
    return (unit for unit in every if unit not in not_done)


def _check_metadata(store: Store) -> Iterator[_Finding]:
    for name, expected in layout.metadata_files(store.manifest).items():
        file = store.path / name
        if not file.is_file():
            yield _Finding("missing", name, f"{name} is missing: Zarr cannot open the store. {_RUN_AGAIN}")
        elif not layout.describes_same(file, expected):
            yield _Finding("damaged", name, f"{name} does not describe the arrays of the manifest. {_RUN_AGAIN}")


def _check_examples(store: Store) -> Iterator[_Finding]:
    name, file = layout.EXAMPLES, store.path / layout.EXAMPLES
    if not file.is_file():
        yield _Finding("missing", name, f"{name} is missing: rows have no ids. {_RESTORE}")
    elif FileHash.read(file).sha256 != store.manifest.examples_sha256:
        yield _Finding("damaged", name, f"{name} is not the file that the manifest describes. {_RESTORE}")


def _check_shard(store: Store, checkpoint: int, shard: int) -> Iterator[_Finding]:
    record = record_name(checkpoint, shard)
    cure = f"Delete {record}, then run the same build command again: it writes that shard anew."
    try:
        held = CommitRecord.read(store.path, checkpoint, shard)
    except StoreCorruptError as error:
        yield _Finding("damaged", record, f"{record}: {error}. {cure}")
        return
    span = store.shard_range(shard)
    expected_files = layout.shard_files(store.manifest, checkpoint, shard)
    if held.rows != (span.start, span.stop) or sorted(held.files) != sorted(expected_files):
        yield _Finding("damaged", record, f"{record} names other rows or files than the store's layout. {cure}")
        return
    for name, expected in held.files.items():
        yield from _check_file(store, name, expected, cure)


def _check_file(store: Store, name: str, expected: FileHash, cure: str) -> Iterator[_Finding]:
    file = store.path / name
    if not file.is_file():
        yield _Finding("missing", name, f"{name} is committed and missing. {cure}")
        return
    found = FileHash.read(file)
    if found.bytes != expected.bytes:
        what = f"has {found.bytes} bytes; {expected.bytes} were committed"
        yield _Finding("damaged", name, f"{name} {what}. {cure}")
    elif found != expected:
        what = f"has SHA-256 {found.sha256[:12]}…; {expected.sha256[:12]}… was committed"
        yield _Finding("damaged", name, f"{name} {what}. {cure}")


def _check_folders(store: Store, pending: Iterable[tuple[int, int]]) -> Iterator[_Finding]:
    """Everything in the store's own folders that is neither metadata nor committed."""
    expected = {*layout.metadata_files(store.manifest)}
    for checkpoint, shard in _committed(store.manifest, pending):
        expected |= {record_name(checkpoint, shard), *layout.shard_files(store.manifest, checkpoint, shard)}
    uncommitted = {name for unit in pending for name in layout.shard_files(store.manifest, *unit)}
    for name in _own_files(store):
        if is_temporary(name.rsplit("/")[-1]) or name in uncommitted:
            yield _Finding("leftover", name, "")
        elif name not in expected and "/" in name:
            yield _Finding("extra", name, f"{name} belongs to no shard of this store. Move it elsewhere.")


def _own_files(store: Store) -> Iterator[str]:
    for folder in layout.folders(store.path, store.manifest):
        files = sorted(folder.iterdir()) if folder.is_dir() else []
        yield from (file.relative_to(store.path).as_posix() for file in files if file.is_file() or folder != store.path)
