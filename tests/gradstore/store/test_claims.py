from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from gradstore.errors import StoreWriteError
from gradstore.store import claims as claims_module
from gradstore.store.claims import BEAT_S, SILENT_S, Builder, Claims, builders, held, joined
from gradstore.store.place import Place, place_of
from tests.buckets import s3


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return place_of(tmp_path)


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _builder(name: str, **changes: object) -> Builder:
    return replace(Builder.here("sketching"), name=name, **changes)  # type: ignore[arg-type]


def _claims(place: Place, name: str, clock: _Clock | None = None, **changes: object) -> Claims:
    found = Claims(place, _builder(name, **changes), clock or _Clock())
    found.say("sketching")
    return found


def test_a_claim_has_one_holder_until_it_lets_go(place: Place) -> None:
    a, b = _claims(place, "a"), _claims(place, "b")
    assert a.take("0-0")
    assert not b.take("0-0")
    assert b.holder("0-0") == a.me
    a.release("0-0")
    assert b.take("0-0")


def test_a_claim_of_a_process_that_has_ended_is_taken_over_at_once(place: Place) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    dead, living = _claims(place, "dead", pid=ended.pid), _claims(place, "living")
    assert dead.take("0-0")
    assert living.take("0-0")
    assert held(place) == {"0-0": "living"}


def test_a_bucket_keeps_claims_as_a_folder_does(tmp_path: Path) -> None:
    with s3(tmp_path / "cache") as url:
        place = place_of(f"{url}/digits.store")
        dead, living = _claims(place, "dead", started=1.0), _claims(place, "living")
        assert dead.take("0-0")
        assert living.take("0-0")
        assert not dead.take("0-0")
        assert (held(place), len(builders(place))) == ({"0-0": "living"}, 2)
        living.leave()
        living.remove_dead()
        assert list(place.entries()) == []


def test_what_this_process_could_not_remove_is_no_claim_when_it_builds_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with joined(place, "sketching") as before:
        assert before.take("0-0")
        monkeypatch.setattr(type(place), "remove", _full)
    monkeypatch.undo()
    with joined(place, "sketching") as again:
        assert again.take("0-0")


def test_a_number_of_a_process_that_another_has_now_keeps_no_claim(place: Place) -> None:
    dead, living = _claims(place, "dead", started=1.0), _claims(place, "living")
    assert dead.take("0-0")
    assert living.take("0-0")


def test_a_builder_of_another_machine_is_gone_when_it_has_been_silent_for_a_minute(place: Place) -> None:
    clock = _Clock()
    far, here = _claims(place, "far", host="elsewhere"), _claims(place, "here", clock)
    assert far.take("0-0")
    assert not here.take("0-0")
    clock.now += SILENT_S - 1
    assert not here.take("0-0")
    far.say("sketching")  # it beats
    clock.now += SILENT_S - 1
    assert not here.take("0-0")
    clock.now += SILENT_S
    assert here.take("0-0")


def test_whoever_joins_removes_what_the_dead_have_left(place: Place) -> None:
    dead, far = _claims(place, "dead", started=1.0), _claims(place, "far", host="elsewhere")
    assert dead.take("0-0")
    assert far.take("0-1")
    with joined(place, "sketching") as here:
        assert held(place) == {"0-1": "far"}
        assert {builder.name for builder in builders(place)} == {"far", here.me.name}


def test_leaving_leaves_nothing(place: Place, tmp_path: Path) -> None:
    with contextlib.suppress(ZeroDivisionError), joined(place, "sketching") as here:
        assert here.take("0-0")
        raise ZeroDivisionError
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_a_builder_beats_while_it_is_joined(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "BEAT_S", 0.01)
    with joined(place, "training") as here:
        first = here.me.beat
        deadline = time.monotonic() + 10
        while builders(place)[0].beat == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert builders(place)[0].beat > first
    assert BEAT_S < SILENT_S / 3


def test_a_heart_that_cannot_write_does_not_end_the_build(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "BEAT_S", 0.01)
    with joined(place, "training") as here:
        monkeypatch.setattr(type(here._place), "write", _full)
        time.sleep(0.05)
        monkeypatch.undo()
        assert here.take("0-0")


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"builder": "nobody"}', '{"bui'])
def test_a_claim_of_nobody_is_free(place: Place, text: str) -> None:
    place.write("build/claims/0-0.json", text.encode())
    assert _claims(place, "a").take("0-0")


def test_a_builder_says_who_and_since_when(place: Place) -> None:
    builder = replace(Builder.here("training"), pid=42, host="n1", since=0.0)
    assert str(builder).startswith("process 42 on n1, training, since 19")
    assert Builder(**json.loads(json.dumps(asdict(builder)))) == builder


def _full(self: object, name: str, data: bytes = b"") -> None:
    raise StoreWriteError("disk full")
