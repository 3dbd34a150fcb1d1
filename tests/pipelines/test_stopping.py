"""SIGTERM and Ctrl-C: what is in hand is finished or not, what is committed is kept, and how to go on is said."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gradstore.store import Store
from gradstore_pipelines import stopping
from tests.pipelines.faulty_builds import command_for, content

Build = Callable[..., Path]
Fault = Callable[[str, int], None]


class _Running:
    """The real command, as soon as the slow shard (number 4) is in hand."""

    def __init__(self, folder: Path, store: Path, *options: str) -> None:
        self.command = [*command_for(folder, store), *options]
        self._store, self._faults = store, folder / "faults" / "sleep"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gradstore_cli", *self.command], stderr=subprocess.PIPE, start_new_session=True
        )
        planned = self._faults.read_text()
        while self._faults.read_text() == planned:
            assert self._process.poll() is None, self._process.communicate()
            time.sleep(0.02)

    def signalled(self, *signals: int, group: bool = False) -> tuple[int, str]:
        """Status and last words after these signals."""
        for number in signals:
            os.killpg(self._process.pid, number) if group else os.kill(self._process.pid, number)
            time.sleep(0.2)
        _, words = self._process.communicate(timeout=120)
        return self._process.returncode, words.decode()

    def pending(self) -> list[int]:
        return [shard for _, shard in Store.open(self._store).pending()]


def test_sigterm_finishes_the_shard_in_hand_and_says_how_to_go_on(
    folder: Path, tmp_path: Path, fault: Fault, build_at: Build, whole: Path
) -> None:
    fault("sleep", 3)
    running = _Running(folder, tmp_path / "store")
    status, words = running.signalled(signal.SIGTERM)
    assert (status, running.pending()) == (143, [5, 6, 7, 8, 9])
    assert words.endswith(f"To go on:\n  {shlex.join(['gradstore', *running.command])}\n")
    assert content(build_at()) == content(whole)


def test_sigterm_to_the_whole_group_lets_workers_finish_their_shards(
    folder: Path, tmp_path: Path, fault: Fault, build_at: Build, whole: Path
) -> None:
    fault("sleep", 3)
    running = _Running(folder, tmp_path / "store", "--workers", "2")
    status, words = running.signalled(signal.SIGTERM, group=True)
    assert status == 143
    assert "the shards in hand are finished first" in words
    assert 4 not in running.pending()
    assert content(build_at()) == content(whole)


@pytest.mark.parametrize(
    ("signals", "status"), [((signal.SIGTERM, signal.SIGTERM), 143), ((signal.SIGINT,), 130)], ids=["twice", "ctrl-c"]
)
def test_a_second_sigterm_and_ctrl_c_stop_at_once_and_lose_only_the_shard_in_hand(
    folder: Path, tmp_path: Path, fault: Fault, signals: tuple[int, ...], status: int, build_at: Build, whole: Path
) -> None:
    fault("sleep", 3)
    running = _Running(folder, tmp_path / "store")
    found, words = running.signalled(*signals)
    assert (found, running.pending()) == (status, [4, 5, 6, 7, 8, 9])
    assert "run the same command to go on" in words
    assert content(build_at()) == content(whole)


def test_only_what_listens_is_asked_and_only_once() -> None:
    assert not stopping.ask()
    with stopping.finishing() as stop:
        assert stopping.ask()
        assert stop.asked
        assert not stopping.ask()
    assert not stopping.ask()
