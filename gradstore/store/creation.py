"""Making a store, safely against a kill half-way and against two processes at once.

Why a store is created in place and not renamed into place: its folder already holds the checkpoints that were
trained for it, and a bucket renames nothing. `manifest.json` is written last instead; without it there is no store,
only a folder to complete. Every other file is replaced whole by the same bytes, so two processes with the same
settings cannot disturb each other, and one that finishes what another began gives the same store.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pyarrow as pa

from gradstore.errors import StoreError, StoreMismatchError
from gradstore.store import layout
from gradstore.store.differences import differences
from gradstore.store.examples import write_examples
from gradstore.store.files import make_folder
from gradstore.store.manifest import Manifest
from gradstore.store.metadata import is_metadata, metadata_files
from gradstore.store.place import Place

_SHOWN = 20


def complete_skeleton(place: Place, manifest: Manifest, examples: Iterable[pa.RecordBatch]) -> None:
    """Write everything but the shards, unless there is a manifest. In a bucket a store is sharded.

    Raises:
        StoreError: the place holds something else; nothing is touched then.
    """
    require_own_place(place)
    if place.exists(layout.MANIFEST):
        return
    manifest = dataclasses.replace(manifest, sharded=manifest.sharded or place.local() is None)
    digest = write_examples(place, layout.EXAMPLES, examples, manifest.n_examples)
    if place.exists(layout.MANIFEST):  # made by another process while this one was reading the source
        return
    restore_metadata(place, manifest)
    whole = dataclasses.replace(manifest, examples_sha256=digest)
    place.write_new(layout.MANIFEST, whole.to_json().encode())


def require_own_place(place: Place) -> None:
    """Raises StoreError: there is no manifest, and what no half-made store holds."""
    # Listed before the manifest is looked for: another process may be creating the same store.
    names = sorted([*place.names(folders=True), *place.names(layout.COMMITS)])
    if not place.exists(layout.MANIFEST):
        _refuse_other_files(place, names)


def read_manifest(place: Place) -> Manifest:
    """The manifest of the store at a place.

    Raises:
        FileNotFoundError: there is none.
        StoreFormatError: not a manifest, or of a newer format.
        StoreCorruptError: not as it was written.
    """
    try:
        return Manifest.from_json(place.read(layout.MANIFEST))
    except StoreError as error:
        error.add_note(f"In the store '{place.location}'.")
        raise


def require_same_settings(place: Place, found: Manifest, asked: Manifest) -> None:
    """Raises StoreMismatchError: shows both values of each setting that differs."""
    lines = [line.removeprefix("settings.") for line in differences(found.identity(), asked.identity())]
    if lines:
        more = [f"and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
        listed = "".join(f"\n  {line}" for line in [*lines[:_SHOWN], *more])
        raise StoreMismatchError(
            f"The store '{place.location}' was made by other settings:{listed}\n"
            "Use another --store path, or the settings that the store has."
        )


def restore_metadata(place: Place, manifest: Manifest) -> None:
    """Write anew each zarr.json that is missing or does not say what the manifest says.

    Also makes each folder that is missing: copying tools drop empty ones.
    """
    for folder in layout.folders(manifest):
        own = place.local(folder)
        if own is not None and not own.is_dir():
            make_folder(own)
    for name, text in metadata_files(manifest).items():
        if not (place.exists(name) and is_metadata(manifest, place.read(name), text)):
            place.write(name, text.encode())


def _refuse_other_files(place: Place, names: list[str]) -> None:
    """A folder without a manifest may hold what a half-made store holds, and no commit record: nobody would know
    by which settings those rows were made.
    """
    foreign = [name for name in names if not layout.may_precede_store(name)]
    if foreign:
        raise StoreError(
            f"'{place.location}' is no gradient store (no {layout.MANIFEST}) and holds {foreign[0]}"
            f"{f' and {len(foreign) - 1} more' if len(foreign) > 1 else ''}. Nothing was touched. "
            "Use another --store path, or an empty folder."
        )
