"""What a pipeline tells whoever is watching; the command line draws it, a library user may ignore it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[int], None]


class Reporter(Protocol):
    """Receives progress and words."""

    def task(self, title: str, total: int, unit: str, done: int = 0) -> AbstractContextManager[Advance]:
        """A piece of work of `total` units, `done` of them already; the value says how many more are."""

    def say(self, message: str) -> None:
        """One line for a person."""


class Silent:
    """A reporter that reports nothing."""

    @contextmanager
    def task(self, title: str, total: int, unit: str, done: int = 0) -> Iterator[Advance]:
        yield lambda n: None

    def say(self, message: str) -> None:
        pass
