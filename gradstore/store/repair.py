"""Repair: take away what is bad, so that the next build makes it again. Nothing that is sound is touched."""

from __future__ import annotations

from dataclasses import dataclass

from gradstore.store.commits import record_name
from gradstore.store.findings import Discard, Finding, Remove, VerifyReport, Write
from gradstore.store.store import Store


@dataclass(frozen=True)
class Repaired:
    """What was done, and what is left."""

    done: tuple[str, ...]
    """a sentence each"""
    left: tuple[Finding, ...]
    """faults that nothing in the store can mend"""
    discarded: tuple[tuple[int, int], ...]
    """(checkpoint, shard) of what is to be built again"""


def repair(store: Store, report: VerifyReport) -> Repaired:
    """Take away every fault of a report that has a cure.

    Raises:
        StoreWriteError: read-only, no permission.
    """
    faults = [finding for finding in report.findings if finding.kind != "leftover"]
    cures = dict.fromkeys(finding.cure for finding in faults if finding.cure is not None)
    done = tuple(_apply(store, cure) for cure in cures)
    return Repaired(
        done=done,
        left=tuple(finding for finding in faults if finding.cure is None),
        discarded=tuple((cure.checkpoint, cure.shard) for cure in cures if isinstance(cure, Discard)),
    )


def _apply(store: Store, cure: Discard | Remove | Write) -> str:
    match cure:
        case Discard(checkpoint, shard):
            store.discard(checkpoint, shard)
            return f"Removed {record_name(checkpoint, shard)}: shard {shard} of checkpoint {checkpoint} is built again."
        case Remove(place, name):
            place.remove(name)
            return f"Removed {name}."
        case Write(place, name, data):
            place.write(name, data)
            return f"Wrote {name} anew."
