from __future__ import annotations

import io
from collections.abc import Iterator

from rich.console import Console

from gradstore_cli.progress import TerminalReporter


def _reporter(clock: Iterator[float], *, terminal: bool = False) -> tuple[TerminalReporter, io.StringIO]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, force_interactive=terminal, width=100, markup=False)
    return TerminalReporter(console, lambda: next(clock)), stream


def test_a_short_task_leaves_no_line_in_a_log() -> None:
    reporter, stream = _reporter(iter([0.0, 0.5, 1.0]))
    with reporter.task("scan", 10, "rows") as advance:
        advance(10)
    assert stream.getvalue() == ""


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end() -> None:
    reporter, stream = _reporter(iter([0.0, 1.0, 10.0, 11.0, 20.0]))
    with reporter.task("sketch", 2000, "rows") as advance:
        for _ in range(3):
            advance(500)
    first, last = stream.getvalue().splitlines()
    assert first == "sketch: 1,000 of 2,000 rows, 100 rows/s, about 10 s left"
    assert last == "sketch: 1,500 of 2,000 rows, 75 rows/s, done in 20 s"


def test_speed_leaves_out_what_an_earlier_run_did() -> None:
    reporter, stream = _reporter(iter([0.0, 10.0, 10.0]))
    with reporter.task("sketch", 1000, "rows", done=800) as advance:
        advance(100)
    assert stream.getvalue().startswith("sketch: 900 of 1,000 rows, 10 rows/s, about 10 s left")


def test_pauses_between_lines_grow() -> None:
    reporter, stream = _reporter(iter([0.0, *map(float, range(1, 10_001)), 1e4]))
    with reporter.task("sketch", 10_000, "rows") as advance:
        for _ in range(10_000):
            advance(1)
    assert len(stream.getvalue().splitlines()) < 30


def test_a_terminal_gets_a_bar_with_counts() -> None:
    reporter, stream = _reporter(iter(()), terminal=True)
    with reporter.task("train", 3000, "rows") as advance:
        advance(3000)
    assert "3,000/3,000" in stream.getvalue()


def test_words_are_never_read_as_markup() -> None:
    reporter, stream = _reporter(iter(()))
    reporter.say("[red] is a file name")
    assert stream.getvalue() == "[red] is a file name\n"


def test_steps_are_told_by_name() -> None:
    reporter, stream = _reporter(iter(()))
    with reporter.steps("Computing signals") as step:
        step("loss")
    assert stream.getvalue() == "Computing signals: loss\n"
