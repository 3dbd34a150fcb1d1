"""What failed, kept until all else is done.

One example that cannot be read, or that a loss chokes on, must not cost a night: its shard is reported by name when
the others are committed. What would fail every shard alike is raised at once instead, and where most fail, the rest
is not tried.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from gradstore.errors import (
    BadExamplesError,
    CorruptExampleError,
    GradstoreError,
    NonFiniteDataError,
    TaskError,
    WorkerError,
)
from gradstore_pipelines.stage import Unit

Blame = Callable[[Unit], Sequence[str]]

# Exactly these, and no subclass: a checkpoint or a device that cannot be used is nothing of one example's.
_OF_EXAMPLES = (TaskError, CorruptExampleError, NonFiniteDataError)
_SHOWN_UNITS, _SHOWN_IDS = 5, 10
_TRIED = 8  # units, before most failing means all


class Failures:
    """The units of one run that failed, and how many did not."""

    def __init__(self) -> None:
        self._found: dict[Unit, Exception] = {}
        self._n_done = 0

    def done(self) -> None:
        """One more that did not."""
        self._n_done += 1

    def add(self, unit: Unit, error: Exception) -> None:
        """Keep it for the end.

        Raises:
            GradstoreError: `error` itself, where the next unit would fail alike.
        """
        if isinstance(error, GradstoreError) and type(error) not in _OF_EXAMPLES and not _is_of_worker(error):
            raise error
        self._found[unit] = error

    def of(self, unit: Unit) -> Exception:
        """What became of a unit that failed."""
        return self._found[unit]

    @property
    def hopeless(self) -> bool:
        """Whether so many failed that the rest need not be tried."""
        return len(self._found) >= _TRIED and len(self._found) > self._n_done

    def raise_any(self, blame: Blame, *, here: bool) -> None:
        """Report what failed, if anything did.

        Args:
            blame: names the examples for which a unit fails.
            here: the units ran in this process: an error that is no GradstoreError is a bug, and keeps its traceback.

        Raises:
            BadExamplesError: examples are to blame.
            WorkerError: none is.
        """
        if self._found:
            self._raise(blame, here)

    def _raise(self, blame: Blame, here: bool) -> NoReturn:
        shown = list(self._found.items())[:_SHOWN_UNITS]
        blamed = {unit: list(blame(unit)) for unit, _ in shown}
        message = self._message(shown, blamed)
        first = shown[0][1]
        if here and not isinstance(first, GradstoreError):
            first.add_note(message)
            raise first
        kind = BadExamplesError if any(blamed.values()) else WorkerError
        error = kind(message)
        if not isinstance(first, GradstoreError):
            error.add_note("".join(traceback.format_exception(first)[-2:]).rstrip())
        raise error from first.__cause__ or first

    def _message(self, shown: Sequence[tuple[Unit, Exception]], blamed: dict[Unit, list[str]]) -> str:
        n = len(self._found)
        rest = "The rest was not tried." if self.hopeless else "The others are committed."
        lines = [f"\n  {unit}{_named(blamed[unit])}: {_words(error)}" for unit, error in shown]
        more = f"\n  and {n - len(shown)} more" if n > len(shown) else ""
        advice = (
            "Repair these examples; to leave them out, build a store of the others."
            if any(blamed.values())
            else "Run the same command to try them again."
        )
        return f"{n} {'shard' if n == 1 else 'shards'} failed. {rest}{''.join(lines)}{more}\n{advice}"


def _is_of_worker(error: GradstoreError) -> bool:
    """A unit that its workers died of; the others' workers did not."""
    return type(error) is WorkerError


def _named(ids: Sequence[str]) -> str:
    if not ids:
        return ""
    listed = ", ".join(map(repr, ids[:_SHOWN_IDS]))
    more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
    return f", example{'' if len(ids) == 1 else 's'} {listed}{more}"


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, GradstoreError) else f"{type(error).__name__}: {error}"
