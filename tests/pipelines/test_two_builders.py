"""Two builders of one store share the work, tell of one another, and wait for what only one can do."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gradstore.errors import StoreNotFoundError
from gradstore.inspect import status
from gradstore.pace import at_work
from gradstore.store import Store
from gradstore.store.claims import SILENT_S, Builder, Claims, joined
from gradstore.store.place import place_of
from gradstore_pipelines.build_store import build
from gradstore_pipelines.one_at_a_time import one_at_a_time
from gradstore_pipelines.progress import Silent
from tests.pipelines.faulty_builds import command_for, content, settings_for

Fault = Callable[[str, int], None]


class _Heard(Silent):
    def __init__(self) -> None:
        self.words: list[str] = []

    def say(self, message: str) -> None:
        self.words.append(message)


@pytest.fixture
def other(folder: Path, tmp_path: Path, fault: Fault) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that builds the same store, with its slow shard (number 4) in hand."""
    fault("sleep", 6)
    command = [sys.executable, "-m", "gradstore_cli", *command_for(folder, tmp_path / "store"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while (folder / "faults" / "sleep").read_text() == "6":
            assert process.poll() is None
            time.sleep(0.02)
        yield process
        process.kill()


def test_a_second_builder_does_other_shards_and_waits_for_the_first(
    other: subprocess.Popen[bytes], folder: Path, tmp_path: Path, whole: Path
) -> None:
    heard = _Heard()
    ours = build(settings_for(folder, tmp_path / "store"), heard).sketched_shards
    theirs = json.loads(other.communicate()[0])["sketched_shards"]
    assert ours + theirs == 10
    assert min(ours, theirs) > 0
    assert any(f"in other hands (process {other.pid} on " in words for words in heard.words)
    assert content(tmp_path / "store") == content(whole)


def test_a_shard_in_the_hands_of_a_killed_builder_is_taken_over(
    other: subprocess.Popen[bytes], folder: Path, tmp_path: Path, whole: Path, fault: Fault
) -> None:
    other.kill()
    other.wait()
    fault("sleep", 0)
    assert build(settings_for(folder, tmp_path / "store")).sketched_shards == 6
    assert content(tmp_path / "store") == content(whole)


def test_status_tells_who_is_at_work_and_how_fast(other: subprocess.Popen[bytes], tmp_path: Path) -> None:
    found = status(Store.open(tmp_path / "store"))
    assert [(builder.pid, builder.doing, builder.in_hand) for builder in found.builders] == [
        (other.pid, "sketching", 1)
    ]
    assert found.n_committed == 4
    assert found.pace is not None
    assert found.pace.seconds_left == pytest.approx(6 * 64 / found.pace.rows_per_second)
    other.kill()
    other.wait()
    assert status(Store.open(tmp_path / "store")).builders == ()


def test_one_trains_while_the_other_is_told_who_and_waits(tmp_path: Path) -> None:
    place, made, said = place_of(tmp_path), list[str](), list[str]()

    def make() -> str:
        time.sleep(0.5)
        made.append("once")
        return "model"

    def one() -> None:
        with joined(place, "preparing") as claims:
            one_at_a_time(claims, "training", make, lambda: made[0] if made else None, said.append)

    both = [threading.Thread(target=one) for _ in range(2)]
    for thread in both:
        thread.start()
    while not any(builder.doing == "training" for builder in at_work(place)):
        time.sleep(0.01)
    for thread in both:
        thread.join()
    assert made == ["once"]
    assert len(said) == 1
    assert said[0].startswith("Another builder has this store in hand (process ")


def test_what_a_builder_that_is_gone_was_preparing_is_prepared_by_the_next(tmp_path: Path) -> None:
    dead = Claims(place_of(tmp_path), replace(Builder.here("training"), started=1.0))
    dead.say("training")
    assert dead.take("preparation")
    with joined(place_of(tmp_path), "preparing") as claims:
        assert one_at_a_time(claims, "training", lambda: "model", lambda: None, print) == "model"


def test_a_builder_that_has_long_been_silent_is_not_at_work(tmp_path: Path) -> None:
    far = replace(Builder.here("training"), host="elsewhere", beat=1000.0)
    Claims(place_of(tmp_path), far).say("training")
    now = at_work(place_of(tmp_path))[0]
    assert (now.host, now.doing) == ("elsewhere", "training")
    assert at_work(place_of(tmp_path), time.time() + SILENT_S + 1) == []
    with pytest.raises(StoreNotFoundError):
        Store.open(tmp_path)
