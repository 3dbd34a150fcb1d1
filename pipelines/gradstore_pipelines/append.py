"""`append`: new examples, or new checkpoints, to a finished store.

    plan, refusing what does not fit -> journal -> staging: what will be replaced -> sketch what is new -> take over

Rows that are there already are not computed again, but for those of the last shard where it was not full: it is
rewritten, never extended. Until `take_over` the store is what it was; what it will be is a store of its own,
`build/append-staging`, which a reader may open as soon as the journal stands. An append that was interrupted is
continued by the same command, or by `gradstore append STORE` alone: everything needed stands in the journal. The same
command without anything to go on with makes shards that `gradstore verify --repair` took back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradstore.data import reopen
from gradstore.errors import StoreMismatchError
from gradstore.store import Store, layout
from gradstore.store.claims import Claims, joined
from gradstore.store.creation import restore_metadata
from gradstore.store.differences import differences
from gradstore.store.journal import Journal
from gradstore.store.layout import arrays
from gradstore.store.place import STAGING, Location, below
from gradstore.store.row_access import read_range
from gradstore.store.sealed import json_text, sealed
from gradstore.store.staged import StagedPlace, begin, take_over
from gradstore_pipelines.append_settings import AppendSettings
from gradstore_pipelines.build_store import example_batches, forget_derived
from gradstore_pipelines.executors import executor_for
from gradstore_pipelines.growth import planned
from gradstore_pipelines.one_at_a_time import one_at_a_time
from gradstore_pipelines.progress import Reporter, Silent
from gradstore_pipelines.remembered import SCAN
from gradstore_pipelines.settings import REQUEST
from gradstore_pipelines.stages.sketch import SketchStage


@dataclass(frozen=True)
class AppendResult:
    """What an append did."""

    store: Location
    n_examples: int
    n_checkpoints: int
    new_examples: int
    new_checkpoints: int
    sketched_shards: int
    """made by this run"""


def append(settings: AppendSettings, reporter: Reporter | None = None) -> AppendResult:
    """Append to a store, go on with an append that was interrupted, or find it done.

    Raises:
        StoreMismatchError: another append is under way, or the store's data have changed.
        SourceError: the new examples are not like the others, or have ids of others.
        CheckpointError: the new checkpoints do not fit.
        StoreWriteError: disk full or no permission; what is committed is kept.
    """
    reporter = reporter or Silent()
    store = Store.open(settings.store)
    with joined(store.place, "appending") as claims:
        journal = _journal(settings, store, reporter)
        if journal is None:
            return _finished(settings, store, store, _sketched(settings, store, claims, reporter))
        made = _grow(settings, store, journal, claims, reporter)
    return _finished(settings, store, Store.open(settings.store), made)


def _finished(settings: AppendSettings, before: Store, after: Store, made: int) -> AppendResult:
    after.remove_leftovers()
    return AppendResult(
        store=settings.store,
        n_examples=after.n_examples,
        n_checkpoints=after.n_checkpoints,
        new_examples=after.n_examples - before.n_examples,
        new_checkpoints=after.n_checkpoints - before.n_checkpoints,
        sketched_shards=made,
    )


def _journal(settings: AppendSettings, store: Store, reporter: Reporter) -> Journal | None:
    """Of the append that is under way, or of one that begins now; None where there is nothing to append."""
    journal = Journal.read(store.place)
    if journal is None and not settings.asks_nothing and (journal := planned(settings, store, reporter)) is not None:
        journal.write(store.place)
        journal = Journal.read(store.place)  # somebody else's, if that was first
    if journal is not None and not settings.asks_nothing:
        _require_same(settings, store, journal)
    return journal


def _require_same(settings: AppendSettings, store: Store, journal: Journal) -> None:
    lines = differences(journal.asked, settings.asked())
    if lines:
        listed = "".join(f"\n  {line}" for line in lines)
        raise StoreMismatchError(
            f"Another append to '{store.location}' is under way, or was interrupted:{listed}\n"
            f"Finish that one first: gradstore append {store.location}"
        )


def _grow(settings: AppendSettings, store: Store, journal: Journal, claims: Claims, reporter: Reporter) -> int:
    """How many shards this run made."""
    place, made = store.place, 0
    if not _is_taken_over(store, journal):
        source = reopen(journal.manifest.provenance["source"])
        grown = one_at_a_time(
            claims, "preparing", lambda: begin(place, example_batches(source)), lambda: _staged(store), reporter.say
        )
        made = _sketched(settings, grown, claims, reporter)
        _say_what_differs(store, grown, reporter)
    return one_at_a_time(claims, "taking over", lambda: _taken_over(store, journal, made), lambda: None, reporter.say)


def _staged(store: Store) -> Store | None:
    place = StagedPlace(store.place)
    return Store.open(place.location) if place.exists(layout.MANIFEST) else None


def _is_taken_over(store: Store, journal: Journal) -> bool:
    """Whether only the last steps are missing: the manifest is the new one, and nothing is staged any more."""
    now, then = store.manifest, journal.manifest
    same = (now.n_examples, now.n_checkpoints) == (then.n_examples, then.n_checkpoints)
    return same and not StagedPlace(store.place).exists(layout.MANIFEST)


def _taken_over(store: Store, journal: Journal, made: int) -> int:
    """The store is the new one; what was computed from the old one goes."""
    place = store.place
    if Journal.read(place) is not None:  # another process may have done it
        place.write(REQUEST, json_text(journal.manifest.settings["request"]).encode())
        if journal.remembered:
            place.write(SCAN, sealed(journal.remembered).encode())
        take_over(place)
        forget_derived(store)
    return made


def _sketched(settings: AppendSettings, store: Store, claims: Claims, reporter: Reporter) -> int:
    """Make every shard that is not done; how many this run made."""
    pending = list(store.pending())
    if not pending:
        return 0
    restore_metadata(store.place, store.manifest)
    claims.say("sketching")
    stamp = reopen(store.manifest.provenance["source"]).stamp()
    stage = SketchStage.planned(store, settings.batch_size, settings.resolved_device(), stamp)
    total = store.n_examples * store.n_checkpoints
    left = sum(len(store.shard_range(shard)) for _, shard in pending)
    executor = executor_for(settings.where(), device=stage.device, folder=_logs(store))
    made = executor.run(stage, reporter, total=total, done=total - left, claims=claims)
    store.refresh()
    store.require_complete()
    if not store.location.endswith(STAGING):
        forget_derived(store)
    return made


def _logs(store: Store) -> Path | None:
    own = store.place.local()
    return None if own is None else own / "build"


def _say_what_differs(store: Store, grown: Store, reporter: Reporter) -> None:
    """The last shard's old rows are the same on the same kind of machine; elsewhere their last bits may differ."""
    start = store.n_examples // store.manifest.shard_rows * store.manifest.shard_rows
    if start == store.n_examples or grown.n_examples == store.n_examples:
        return
    for checkpoint in range(store.n_checkpoints):
        for array in arrays(store.manifest):
            old, new = (
                read_range(s.place, array, s.manifest, checkpoint, start, store.n_examples) for s in (store, grown)
            )
            if not np.array_equal(old.view(np.uint8), new.view(np.uint8)):
                reporter.say(
                    f"The {store.n_examples - start} rows of the last shard come out otherwise here in their last bits "
                    "than where the store was made: another machine or other versions."
                )
                return


def open_growing(location: Location) -> Store:
    """The store that an append is making.

    Raises:
        StoreNotFoundError: nothing is being appended.
    """
    return Store.open(below(location, STAGING))
