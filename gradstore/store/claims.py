"""Who is building a store, and what each builder has in hand: how several of them share the work.

Each builder keeps one small file in `build/builders` and writes it anew every few seconds; for everything that it has
in hand it puts one file, with its name in it, into `build/claims`. A name that must be new is all that a place has to
offer: no lock that some network file systems do not keep, and nothing that outlives its holder for long. A builder is
gone when its process is gone from this machine, or when its file has not changed for a minute.

Why the minute is counted by the watcher's own clock, from when it first saw the file as it is: clocks of machines
differ, and a bucket has its own.

A claim saves work and guards nothing: two builders that, in the instant of a take-over, hold the same claim write the
same bytes, and a commit record decides what is done.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from gradstore.errors import StoreError
from gradstore.store.place import Place
from gradstore.store.processes import started

BEAT_S = 10.0
SILENT_S = 60.0
_SAME_START_S = 2.0  # the time a system booted, from which processes count theirs, is corrected with its clock
BUILDERS, CLAIMS = "build/builders", "build/claims"

Clock = Callable[[], float]

_of_this_process: set[str] = set()
"""names of the builders that this process has joined as; a file of any other, with its number, is left over"""


@dataclass(frozen=True, kw_only=True)
class Builder:
    """A process that builds, as its file says."""

    name: str
    host: str
    pid: int
    started: float
    """of its process, by its machine's clock: another process may have the same number later"""
    since: float
    """seconds since 1970"""
    doing: str
    beat: float
    """when it was last heard of, by its own clock"""

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since).strftime("%Y-%m-%d %H:%M:%S")
        return f"process {self.pid} on {self.host}, {self.doing}, since {since}"

    @classmethod
    def here(cls, doing: str) -> Builder:
        """The file of this process."""
        host, pid, now = socket.gethostname(), os.getpid(), time.time()
        name = f"{host}-{pid}-{secrets.token_hex(4)}"
        return cls(name=name, host=host, pid=pid, started=started(pid) or now, since=now, doing=doing, beat=now)

    @property
    def is_of_this_host(self) -> bool:
        return self.host == socket.gethostname()

    @property
    def has_ended(self) -> bool:
        """Whether its process has, which is known on its own machine only."""
        if not self.is_of_this_host:
            return False
        if self.pid == os.getpid() and self.name not in _of_this_process:
            return True
        found = started(self.pid)
        return found is None or abs(found - self.started) > _SAME_START_S


class Claims:
    """The claims of one builder. Made by `joined`."""

    def __init__(self, place: Place, me: Builder, clock: Clock = time.monotonic) -> None:
        self.me = me
        self._place, self._clock = place, clock
        self._held: set[str] = set()
        self._seen: dict[str, tuple[float, float]] = {}  # builder -> its beat, and when that was first seen

    def take(self, key: str) -> bool:
        """Claim something; False while another living builder holds it.

        Raises:
            StoreWriteError: disk full, read-only, no permission.
        """
        if self._put(key):
            return True
        if self.holder(key) is not None:
            return False
        self._place.remove(_claim(key))
        return self._put(key)

    def release(self, key: str) -> None:
        """Let go of it."""
        self._held.discard(key)
        self._place.remove(_claim(key))

    def holder(self, key: str) -> Builder | None:
        """The living builder that holds it, if any."""
        try:
            name = str(json.loads(self._place.read(_claim(key)))["builder"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        builder = _read(self._place, name)
        return builder if builder is not None and self._is_alive(builder) else None

    def say(self, doing: str) -> None:
        """Tell others what this builder does now."""
        _of_this_process.add(self.me.name)
        self.me = replace(self.me, doing=doing, beat=time.time())
        self._place.write(_file(self.me.name), json.dumps(asdict(self.me)).encode())

    def remove_dead(self) -> None:
        """Remove what builders have left that are gone."""
        claimed = held(self._place)  # listed first: whoever claims something has said who it is before
        there = builders(self._place)
        dead = {builder.name for builder in there if not self._is_alive(builder)}
        living = {builder.name for builder in there} - dead
        for key, name in claimed.items():
            if name not in living:
                self._place.remove(_claim(key))
        for name in dead:
            self._place.remove(_file(name))

    def leave(self) -> None:
        """Let go of everything."""
        _of_this_process.discard(self.me.name)
        for key in sorted(self._held):
            self.release(key)
        self._place.remove(_file(self.me.name))

    def _put(self, key: str) -> bool:
        if not self._place.write_new(_claim(key), json.dumps({"builder": self.me.name}).encode()):
            return False
        self._held.add(key)
        return True

    def _is_alive(self, builder: Builder) -> bool:
        if builder.name == self.me.name:
            return True
        beat, seen = self._seen.get(builder.name, (None, 0.0))
        if beat != builder.beat:
            seen = self._clock()
            self._seen[builder.name] = builder.beat, seen
        return not builder.has_ended and self._clock() - seen < SILENT_S


@contextmanager
def joined(place: Place, doing: str) -> Iterator[Claims]:
    """Build here too: be seen by other builders while the block runs.

    Raises:
        StoreWriteError: disk full, read-only, no permission.
    """
    claims, ends = Claims(place, Builder.here(doing)), threading.Event()
    claims.remove_dead()
    claims.say(doing)
    heart = threading.Thread(target=_beat, args=(claims, ends), name="gradstore-heart", daemon=True)
    heart.start()
    try:
        yield claims
    finally:
        ends.set()
        heart.join()
        with suppress(StoreError):  # whatever ended the block is what is to be told; the claims expire
            claims.leave()


def builders(place: Place) -> list[Builder]:
    """All that say they are building, also those that were killed."""
    names = sorted(name.removeprefix(f"{BUILDERS}/").removesuffix(".json") for name in place.names(BUILDERS))
    found = (_read(place, name) for name in names if not name.startswith("."))
    return [builder for builder in found if builder is not None]


def held(place: Place) -> dict[str, str]:
    """Every claim -> the name of its builder."""
    found = {}
    for name in sorted(place.names(CLAIMS)):
        key = name.removeprefix(f"{CLAIMS}/").removesuffix(".json")
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            found[key] = str(json.loads(place.read(name))["builder"])
    return found


def _beat(claims: Claims, ends: threading.Event) -> None:
    while not ends.wait(BEAT_S):
        with suppress(StoreError):  # a full disk ends the build when it writes rows; silence alone must not
            claims.say(claims.me.doing)


def _read(place: Place, name: str) -> Builder | None:
    """None: it has left, or its file is none."""
    try:
        return Builder(**json.loads(place.read(_file(name))))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _claim(key: str) -> str:
    return f"{CLAIMS}/{key}.json"


def _file(name: str) -> str:
    return f"{BUILDERS}/{name}.json"
