"""The journal of an append: what the store shall become, written first and removed last.

    build/append-journal.json    the manifest that the store shall have, and which files it replaces
    build/append-staging/        those files, until all of them are there (`gradstore.store.staged`)

Whoever finds a journal goes on where its writer stopped, with nothing but what stands in it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gradstore.store.commits import record_name
from gradstore.store.layout import EXAMPLES, MANIFEST, shard_files
from gradstore.store.manifest import Manifest
from gradstore.store.metadata import metadata_files
from gradstore.store.place import Place
from gradstore.store.sealed import require_sealed, sealed

JOURNAL = "build/append-journal.json"


@dataclass(frozen=True)
class Journal:
    """What an append makes of a store."""

    asked: Mapping[str, Any]
    """by the user, as JSON: going on with something else is refused"""
    manifest: Manifest
    """of the store that is to be; the hash of its examples is found out on the way"""
    staged: tuple[str, ...]
    """files of the store that it replaces"""
    remembered: Mapping[str, Any]
    """what is known of the data then, for `build/scan.json`"""

    @classmethod
    def of(cls, before: Manifest, after: Manifest, asked: Mapping[str, Any], remembered: Mapping[str, Any]) -> Journal:
        """Growing a store from one manifest to another."""
        replaced = _replaced(before, after)
        after = dataclasses.replace(after, examples_sha256=None if EXAMPLES in replaced else before.examples_sha256)
        return cls(asked, after, tuple(sorted(replaced)), remembered)

    @classmethod
    def read(cls, place: Place) -> Journal | None:
        """Of the append that is under way, if any.

        Raises:
            StoreCorruptError: the journal is damaged.
        """
        try:
            found = require_sealed(place.read(JOURNAL), JOURNAL)
        except FileNotFoundError:
            return None
        manifest = Manifest.from_json(sealed(found["manifest"]))
        return cls(found["asked"], manifest, tuple(found["staged"]), found["remembered"])

    def write(self, place: Place) -> bool:
        """Whether this is the one that counts: False where there is a journal already."""
        manifest = json.loads(self.manifest.to_json())
        document = {"asked": self.asked, "manifest": manifest, "staged": self.staged, "remembered": self.remembered}
        return place.write_new(JOURNAL, sealed(document).encode())


def append_under_way(place: Place) -> bool:
    """Whether something is being appended, or an append was interrupted."""
    return place.exists(JOURNAL)


def _replaced(before: Manifest, after: Manifest) -> set[str]:
    """Names of the files that the two stores have in common and whose content differs."""
    names = {MANIFEST, *metadata_files(before)}
    if after.n_examples > before.n_examples:
        names.add(EXAMPLES)
        if before.n_examples % before.shard_rows:
            tail = before.n_shards - 1
            for checkpoint in range(before.n_checkpoints):
                names |= {record_name(checkpoint, tail), *shard_files(before, checkpoint, tail)}
    return names
