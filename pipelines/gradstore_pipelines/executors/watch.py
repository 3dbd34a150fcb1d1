"""What a person wants to know of workers far away: how many there are, and which of them is slow."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable

_SLOW_TIMES, _SLOW_S = 3.0, 30.0
_REMEMBERED = 64
_FIRST_WAIT_S, _GROWTH = 15.0, 2.0

Clock = Callable[[], float]


class Watch:
    """Says when workers come, go, are slow, or none is there."""

    def __init__(self, say: Callable[[str], None], place: str, clock: Clock = time.monotonic) -> None:
        self._say, self._place, self._clock = say, place, clock
        self._durations: deque[float] = deque(maxlen=_REMEMBERED)
        self._last: dict[str, float] = {}  # by worker: when it finished something, or was first seen
        self._hosts: dict[str, str] = {}
        self._told_slow: set[str] = set()
        self._n_workers = 0
        self._wait = _FIRST_WAIT_S
        self._alone_since = clock()

    def finished(self, worker: str, host: str, seconds: float) -> None:
        """A worker has done a unit."""
        self._durations.append(seconds)
        self._last[worker], self._hosts[worker] = self._clock(), host
        self._told_slow.discard(worker)

    def look(self, workers: Iterable[str], *, busy: bool) -> None:
        """Compare with the last time.

        Args:
            workers: addresses of all that are connected.
            busy: whether there is something for each of them to do.
        """
        now, there = self._clock(), set(workers)
        self._last = {worker: self._last.get(worker, now) for worker in there}
        self._tell_number(len(there), now)
        if busy:
            self._tell_slow(now)

    def _tell_number(self, n: int, now: float) -> None:
        if n != self._n_workers:
            self._say(f"{n} {'worker' if n == 1 else 'workers'} at {self._place}.")
            self._n_workers, self._wait, self._alone_since = n, _FIRST_WAIT_S, now
        elif n == 0 and now - self._alone_since > self._wait:
            self._wait *= _GROWTH
            self._say(f"No worker at {self._place} for {now - self._alone_since:.0f} s; waiting.")

    def _tell_slow(self, now: float) -> None:
        if len(self._durations) < 3:
            return
        usual = statistics.median(self._durations)
        for worker, since in self._last.items():
            if now - since > max(_SLOW_TIMES * usual, _SLOW_S) and worker not in self._told_slow:
                self._told_slow.add(worker)
                host = self._hosts.get(worker)
                on = f" on {host}" if host else ""
                self._say(
                    f"The worker {worker}{on} has been at one shard for {now - since:.0f} s; half of them take less "
                    f"than {usual:.0f} s."
                )
