"""What a pipeline tells whoever is watching; the command line draws it, a library user may ignore it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

Advance = Callable[[int], None]


class Reporter(Protocol):
    """Receives progress and words."""

    def task(
        self, title: str, total: int, unit: str, done: int = 0, *, unit_bytes: int = 0
    ) -> AbstractContextManager[Advance]:
        """A piece of work of `total` units, `done` of them already; the value says how many more are.

        Args:
            unit_bytes: what each of them writes, for the speed in bytes.
        """

    def say(self, message: str) -> None:
        """One line for a person."""


@contextmanager
def following(reporter: Reporter, title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A callback (done, total) that a reporter shows; nothing is shown when it is never called."""
    with ExitStack() as stack:
        advance: Advance | None = None
        seen = 0

        def follow(done: int, total: int) -> None:
            nonlocal advance, seen
            if advance is None:
                advance = stack.enter_context(reporter.task(title, total, unit))
            advance(done - seen)
            seen = done

        yield follow


class Silent:
    """A reporter that reports nothing."""

    @contextmanager
    def task(self, title: str, total: int, unit: str, done: int = 0, *, unit_bytes: int = 0) -> Iterator[Advance]:
        yield lambda n: None

    def say(self, message: str) -> None:
        pass
