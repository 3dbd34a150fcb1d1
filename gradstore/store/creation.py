"""Making a store's folder, safely against a kill half-way and against two processes at once.

Why a store is created in place and not renamed into place: its folder already holds the checkpoints that were
trained for it. `manifest.json` is written last instead; without it there is no store, only a folder to complete.
Every other file is replaced whole by the same bytes, so two processes with the same settings cannot disturb each
other, and one that finishes what another began gives the same store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from gradstore.errors import StoreError, StoreMismatchError
from gradstore.store import layout
from gradstore.store.commits import FileHash
from gradstore.store.examples import write_examples
from gradstore.store.files import make_folder, write_atomically
from gradstore.store.manifest import Manifest, differences

_SHOWN = 20


def complete_skeleton(path: Path, manifest: Manifest, examples: Iterable[pa.RecordBatch]) -> None:
    """Write everything but the shards, unless `path` holds a manifest.

    Raises:
        StoreError: the folder holds something else; nothing is touched then.
    """
    require_own_folder(path)
    if _exists(path):
        return
    make_folders(path, manifest)
    write_examples(path / layout.EXAMPLES, examples, manifest.n_examples)
    if _exists(path):  # made by another process while this one was reading the source
        return
    restore_metadata(path, manifest)
    whole = dataclasses.replace(manifest, examples_sha256=FileHash.read(path / layout.EXAMPLES).sha256)
    write_atomically(path / layout.MANIFEST, whole.to_json().encode())


def require_own_folder(path: Path) -> None:
    """Raises StoreError: the folder has no manifest and holds what no half-made store holds."""
    # Listed before the manifest is looked for: another process may be creating the same store.
    names = _names_in(path)
    if not _exists(path):
        _refuse_other_files(path, names)


def read_manifest(path: Path) -> Manifest:
    """Raises StoreFormatError: not a manifest, or of a newer format."""
    try:
        return Manifest.from_json((path / layout.MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        error.add_note(f"In the store '{path}'.")
        raise


def require_same_settings(path: Path, found: Manifest, asked: Manifest) -> None:
    """Raises StoreMismatchError: shows both values of each setting that differs."""
    lines = [line.removeprefix("settings.") for line in differences(found.identity(), asked.identity())]
    if lines:
        more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        listed = "".join(f"\n  {line}" for line in [*lines[:_SHOWN], *more])
        raise StoreMismatchError(
            f"The store '{path}' was made by other settings:{listed}\n"
            "Use another --store path, or the settings that the store has."
        )


def make_folders(path: Path, manifest: Manifest) -> None:
    """Make each folder of the store that is not there; copying tools drop empty ones."""
    for folder in layout.folders(path, manifest):
        if not folder.is_dir():
            make_folder(folder)


def restore_metadata(path: Path, manifest: Manifest) -> None:
    """Write anew each zarr.json that is missing or does not say what the manifest says."""
    make_folders(path, manifest)
    for name, text in layout.metadata_files(manifest).items():
        if not layout.describes_same(path / name, text):
            write_atomically(path / name, text.encode())


def _exists(path: Path) -> bool:
    return (path / layout.MANIFEST).is_file()


def _names_in(path: Path) -> list[str]:
    if path.exists() and not path.is_dir():
        raise StoreError(f"'{path}' is a file; a store is a folder. Use another --store path.")
    commits = path / layout.COMMITS
    inside = [f"{layout.COMMITS}/{file.name}" for file in commits.iterdir()] if commits.is_dir() else []
    return sorted([*(file.name for file in path.iterdir()), *inside]) if path.exists() else []


def _refuse_other_files(path: Path, names: list[str]) -> None:
    """A folder without a manifest may hold what a half-made store holds, and no commit record: nobody would know
    by which settings those rows were made.
    """
    foreign = [name for name in names if not layout.may_precede_store(name)]
    if foreign:
        raise StoreError(
            f"'{path}' is no gradient store (no {layout.MANIFEST}) and holds {foreign[0]}"
            f"{f' and {len(foreign) - 1} more' if len(foreign) > 1 else ''}. Nothing was touched. "
            "Use another --store path, or an empty folder."
        )
