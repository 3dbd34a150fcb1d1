"""Ending well: a process that is asked to stop finishes what it has in hand.

A job scheduler sends SIGTERM some time before it kills. Whatever works in pieces listens while it does; the command
line's signal handler asks, and where nobody listens, or at the second asking, it stops at once instead.

Why a plain attribute and no `threading.Event`: `ask` is called from a signal handler, which may interrupt the very
thread that holds the event's lock.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(KeyboardInterrupt):
    """A process ends because it was asked to; whatever cleans up after Ctrl-C cleans up after this."""


class Stop:
    """Whether somebody has asked."""

    asked = False


_listening: list[Stop] = []


@contextmanager
def finishing() -> Iterator[Stop]:
    """While the block runs, `ask` sets what it is given; the block ends soon, and raises `Stopped`."""
    stop = Stop()
    _listening.append(stop)
    try:
        yield stop
    finally:
        _listening.remove(stop)


def ask() -> bool:
    """Ask whatever is in hand to be the last; False where nobody listens, or was asked before.

    >>> with finishing() as stop:
    ...     print(ask(), stop.asked, ask())
    True True False
    """
    if not _listening or _listening[-1].asked:
        return False
    _listening[-1].asked = True
    return True
