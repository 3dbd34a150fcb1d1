"""Progress on stderr: a bar for a person, now and then a line for a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from gradstore_cli import human
from gradstore_pipelines.progress import Advance

_FIRST_LINE_S = 10.0
_QUIET_S = 2.0
_GROWTH = 1.3  # every pause between lines is longer, so that a job of days does not fill its log

Clock = Callable[[], float]


class TerminalReporter:
    """A `gradstore_pipelines.progress.Reporter` that draws on stderr."""

    def __init__(self, console: Console | None = None, clock: Clock = time.monotonic) -> None:
        self._console = console or Console(stderr=True, highlight=False, markup=False)
        self._clock = clock

    @contextmanager
    def task(self, title: str, total: int, unit: str, done: int = 0, *, unit_bytes: int = 0) -> Iterator[Advance]:
        if self._console.is_interactive:
            with _bar(self._console) as progress:
                number = progress.add_task(title, total=total, completed=done, unit=unit, unit_bytes=unit_bytes)
                yield lambda n: progress.advance(number, n)
        else:
            log = _Log(self.say, self._clock, title, total, unit, done, unit_bytes)
            yield log.advance
            log.finish()

    @contextmanager
    def steps(self, title: str) -> Iterator[Callable[[str], None]]:
        """Work whose steps are told by name as they start."""
        if self._console.is_interactive:
            with self._console.status(title) as status:
                yield lambda step: status.update(f"{title}: {step}")
        else:
            yield lambda step: self.say(f"{title}: {step}")

    def say(self, message: str) -> None:
        self._console.print(message, soft_wrap=True)


class _RateColumn(ProgressColumn):
    """Speed of late; work that an earlier run did does not count."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else _speed(speed, task.fields["unit"], task.fields["unit_bytes"]))


def _speed(per_second: float, unit: str, unit_bytes: int) -> str:
    """With the bytes that it writes, where it writes any."""
    in_bytes = f", {human.size(round(per_second * unit_bytes))}/s" if unit_bytes else ""
    return human.rate(per_second, unit) + in_bytes


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}/{task.total:,.0f}"),
        _RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )


@dataclass
class _Log:
    say: Callable[[str], None]
    clock: Clock
    title: str
    total: int
    unit: str
    done_before: int
    unit_bytes: int = 0

    def __post_init__(self) -> None:
        self._done, self._started, self._next_line = self.done_before, self.clock(), _FIRST_LINE_S

    def advance(self, n: int) -> None:
        self._done += n
        elapsed = self.clock() - self._started
        if elapsed >= self._next_line:
            self._next_line = elapsed + max(_FIRST_LINE_S, elapsed * (_GROWTH - 1))
            self.say(f"{self._so_far(elapsed)}, about {human.duration(self._left(elapsed))} left")

    def finish(self) -> None:
        elapsed = self.clock() - self._started
        if elapsed >= _QUIET_S:
            self.say(f"{self._so_far(elapsed)}, done in {human.duration(elapsed)}")

    def _so_far(self, elapsed: float) -> str:
        speed = _speed(self._rate(elapsed), self.unit, self.unit_bytes)
        return f"{self.title}: {self._done:,} of {self.total:,} {self.unit}, {speed}"

    def _rate(self, elapsed: float) -> float:
        return (self._done - self.done_before) / elapsed

    def _left(self, elapsed: float) -> float:
        return (self.total - self._done) / max(self._rate(elapsed), 1e-9)
