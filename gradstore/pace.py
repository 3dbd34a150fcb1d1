"""How fast a build goes, and who is at it: from the files that it writes, so that any terminal can ask.

A commit record's file has a time, of the place where it lies; the latest of them give the speed. It is counted up to
now, so that a build that has come to a halt is seen to slow down.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradstore.store import Store
from gradstore.store.claims import CLAIMS, SILENT_S, Builder, builders, held
from gradstore.store.commits import record_name
from gradstore.store.layout import shard_bytes
from gradstore.store.place import Entry, Place

_LATEST = 64
_SLOW_TIMES, _SLOW_S = 3.0, 60.0


@dataclass(frozen=True)
class Pace:
    """Of the builders that are at work, all together."""

    rows_per_second: float
    bytes_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class AtWork:
    """A builder, as one looks at it from outside."""

    host: str
    pid: int
    doing: str
    since: float
    """seconds since 1970"""
    heard_of: float
    """seconds ago"""
    in_hand: int
    """shards that it has claimed"""


@dataclass(frozen=True)
class Slow:
    """A shard that has been in somebody's hands for much longer than others."""

    shard: str
    """checkpoint-shard"""
    host: str
    pid: int
    seconds: float


def at_work(place: Place, now: float | None = None) -> list[AtWork]:
    """The builders of a store, or of what will be one, that have been heard of in the last minute."""
    now = time.time() if now is None else now
    claimed = list(held(place).values())
    return [
        AtWork(b.host, b.pid, b.doing, b.since, max(now - b.beat, 0.0), claimed.count(b.name))
        for b in _living(builders(place), now)
    ]


def pace(store: Store, entries: Iterable[Entry], now: float | None = None) -> Pace | None:
    """The speed of the latest commits; None where there are too few.

    Args:
        entries: the store's files.
    """
    now = time.time() if now is None else now
    units = itertools.product(range(store.n_checkpoints), range(store.n_shards))
    rows = {record_name(checkpoint, shard): len(store.shard_range(shard)) for checkpoint, shard in units}
    done = sorted((entry.modified, rows[entry.name]) for entry in entries if entry.name in rows)
    latest = done[-_LATEST:]
    if len(latest) < 2 or now <= latest[0][0]:
        return None
    speed = sum(n for _, n in latest[1:]) / (now - latest[0][0])
    left = store.n_examples * store.n_checkpoints - sum(n for _, n in done)
    row_bytes = shard_bytes(store.manifest) / store.manifest.shard_rows
    return Pace(speed, speed * row_bytes, left / speed)


def slow_shards(store: Store, entries: Iterable[Entry], now: float | None = None) -> list[Slow]:
    """Claims three times as old as others are, and more than a minute."""
    now = time.time() if now is None else now
    ages = {_key(entry): now - entry.modified for entry in entries if entry.name.startswith(f"{CLAIMS}/")}
    if len(ages) < 3:
        return []
    limit = max(_SLOW_TIMES * statistics.median(ages.values()), _SLOW_S)
    by_name, owners = {b.name: b for b in _living(builders(store.place), now)}, held(store.place)
    return [
        Slow(key, by_name[owners[key]].host, by_name[owners[key]].pid, age)
        for key, age in sorted(ages.items())
        if age > limit and owners.get(key) in by_name
    ]


def _living(found: Sequence[Builder], now: float) -> list[Builder]:
    return [builder for builder in found if not builder.has_ended and now - builder.beat < SILENT_S]


def _key(entry: Entry) -> str:
    return entry.name.removeprefix(f"{CLAIMS}/").removesuffix(".json")
