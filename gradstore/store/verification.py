"""Is the store what was written, and can its numbers be right?

    files     every committed byte against its hash, missing and foreign files     `verify_files`
    rows      NaN, rows of zeros, norms and sketches that contradict each other    `verify_rows`
    beside    checkpoints, cached signals, indexes, graphs, the forgotten          `verify_beside`

Every file is read once for its hash, in constant memory, and sound shards are read once more, block by block, for what
is in them. What a killed run left behind is reported and is no fault: no reader looks at it, and the next build
replaces or removes it.

What this cannot know is whether the rows are those of the data and the model: that takes computing some of them again
(`gradstore_pipelines.recompute`).
"""

from __future__ import annotations

from collections.abc import Callable

from gradstore.errors import StoreCorruptError, StoreFormatError
from gradstore.store import layout
from gradstore.store.findings import Finding, VerifyReport
from gradstore.store.place import Location
from gradstore.store.store import Store
from gradstore.store.verify_beside import check_beside
from gradstore.store.verify_files import check_examples, check_folders, check_metadata, check_shard, committed
from gradstore.store.verify_rows import RowChecks


def verify(store: Store, progress: Callable[[int], None] | None = None) -> VerifyReport:
    """Look for everything that is missing, damaged, foreign or impossible.

    Args:
        progress: called with the number of shards checked so far.
    """
    pending = tuple(store.pending())
    findings = [*check_metadata(store), *check_examples(store)]
    rows = RowChecks(store)
    for n_checked, (checkpoint, shard) in enumerate(committed(store.manifest, pending), start=1):
        faults = list(check_shard(store, checkpoint, shard))
        findings += faults or rows.check(checkpoint, shard)
        if progress is not None:
            progress(n_checked)
    findings += [*check_folders(store, pending), *check_beside(store)]
    n_shards = store.n_checkpoints * store.n_shards
    return VerifyReport(n_shards, pending, tuple(findings), notes=tuple(rows.notes()))


def verify_at(location: Location, progress: Callable[[int], None] | None = None) -> VerifyReport:
    """The same of a store that may not even open, because its manifest is damaged.

    Raises:
        StoreNotFoundError: there is none.
    """
    try:
        store = Store.open(location)
    except (StoreCorruptError, StoreFormatError) as error:
        finding = Finding("damaged", layout.MANIFEST, f"{error} Nothing else was looked at.")
        return VerifyReport(n_shards=0, pending=(), findings=(finding,))
    return verify(store, progress)
