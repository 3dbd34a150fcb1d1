"""Progress of work that is made of other work: a build's tasks move the bar of the whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from gradstore_pipelines.progress import Advance, Reporter


class Whole:
    """The bar of everything; what was said once is not said again for every part."""

    def __init__(self, reporter: Reporter, advance: Advance) -> None:
        self._reporter, self.advance = reporter, advance
        self._said: set[str] = set()

    def say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self._reporter.say(message)

    def part(self, rows: Mapping[str, int]) -> Part:
        """What a part's tasks count, by their titles."""
        return Part(self, rows)


class Part:
    """The reporter that a part is given."""

    def __init__(self, whole: Whole, rows: Mapping[str, int]) -> None:
        self._whole, self._rows, self._left = whole, rows, sum(rows.values())
        self.say = whole.say

    @contextmanager
    def task(self, title: str, total: int, unit: str, done: int = 0, *, unit_bytes: int = 0) -> Iterator[Advance]:
        rows, told, seen = self._rows.get(title, 0), 0, done

        def advance(n: int) -> None:
            nonlocal told, seen
            seen += n
            now = rows * min(seen, total) // max(total, 1)
            self._advance(now - told)
            told = now

        yield advance

    def finish(self) -> None:
        """Whatever was not counted, because it was done already, is done now."""
        self._advance(self._left)

    def _advance(self, n: int) -> None:
        n = min(n, self._left)
        self._left -= n
        self._whole.advance(n)
