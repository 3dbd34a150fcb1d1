"""Growing a store, stopped at every single step: a reader sees the old store or the new one, and it can go on."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gradstore.errors import StoreNotFoundError
from gradstore.store import Store, verify
from gradstore.store.folder import Folder
from gradstore.store.journal import JOURNAL, Journal
from gradstore.store.place import STAGING, below, place_of
from gradstore.store.staged import begin, take_over
from gradstore.testing.store_kit import arrays_for, example_batches, fill, manifest_of

BEFORE = manifest_of(n_examples=10, shard_rows=8, learning_rates=(0.1,))
AFTER = dataclasses.replace(BEFORE, n_examples=17)
MORE_CHECKPOINTS = dataclasses.replace(BEFORE, learning_rates=(0.1, 0.2))


def examples(n: int) -> Iterator[pa.RecordBatch]:
    return example_batches([f"x{row}" for row in range(n)], labels=[row % 3 for row in range(n)])


def whole_arrays(path: Path) -> Any:
    """Rows of a store that is as large as any here."""
    largest = dataclasses.replace(AFTER, learning_rates=MORE_CHECKPOINTS.learning_rates)
    return arrays_for(Store.create(path, largest, examples(17)))


def filled(store: Store, arrays: Any) -> Store:
    c, n = store.n_checkpoints, store.n_examples
    fill(store, *(values[:c, :n] for values in arrays))
    return store


def seen(store: Store) -> str:
    """Everything that a reader sees of a store."""
    digest = hashlib.sha256(repr((store.n_examples, store.ids(0, store.n_examples), store.labels())).encode())
    for checkpoint in range(store.n_checkpoints):
        for values in (
            store.unit_sketches(checkpoint, 0, store.n_examples),
            store.norms(checkpoint),
            store.losses(checkpoint),
            store.latents(checkpoint, 0, store.n_examples),
        ):
            digest.update(values.tobytes())
    return digest.hexdigest()


def files(path: Path) -> dict[str, bytes]:
    return {f.relative_to(path).as_posix(): f.read_bytes() for f in path.rglob("*") if f.is_file()}


class KilledError(Exception):
    """Stands for a kill between two operations on files; what happens within one is tested elsewhere."""


class MortalFolder(Folder):
    """A folder whose process dies before its n-th change, and that lets somebody look before each."""

    def __init__(self, path: Path, left: int, look: Any) -> None:
        super().__init__(path)
        self._left, self._look = left, look

    def _change(self) -> None:
        self._look()
        if self._left == 0:
            raise KilledError
        self._left -= 1

    def write(self, name: str, data: bytes | memoryview) -> None:
        self._change()
        super().write(name, data)

    def write_new(self, name: str, data: bytes | memoryview) -> bool:
        self._change()
        return super().write_new(name, data)

    def replacing(self, name: str) -> Any:
        self._change()
        return super().replacing(name)

    def remove(self, name: str) -> None:
        self._change()
        super().remove(name)


def grow(base: Folder, after: Any, arrays: Any) -> None:
    """What an append does, begun or continued, on a given place."""
    journal = Journal.read(base)
    before = Store.open(base.location)
    if journal is None:
        Journal.of(before.manifest, after, {}, {}).write(base)
    staged = begin(base, examples(after.n_examples))
    filled(Store(type(staged.place)(base), staged.manifest), arrays)  # type: ignore[call-arg]
    take_over(base)


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the store before, and the one after as it would be built at once."""
    monkeypatch.setattr("gradstore.store.files._sync", lambda path: None)  # hundreds of files; that is tested elsewhere
    arrays = whole_arrays(tmp_path / "largest")
    filled(Store.create(tmp_path / "old", BEFORE, examples(10)), arrays)

    def stores(after: Any) -> tuple[Any, Path, Path]:
        filled(Store.create(tmp_path / "new", after, examples(after.n_examples)), arrays)
        return arrays, tmp_path / "old", tmp_path / "new"

    return stores


@pytest.mark.parametrize("after", [AFTER, MORE_CHECKPOINTS])
def test_a_reader_sees_the_old_store_or_the_new_one(tmp_path: Path, stores: Any, after: Any) -> None:
    arrays, old, new = stores(after)
    opened_before, before, both = Store.open(old), seen(Store.open(old)), {seen(Store.open(old)), seen(Store.open(new))}

    def look() -> None:
        assert seen(Store.open(old)) in both
        assert seen(opened_before) == before  # whoever had it open sees what it was

    grow(MortalFolder(old, 1000, look), after, arrays)
    assert files(old) == files(new)
    assert seen(opened_before) == before


@pytest.mark.parametrize("after", [AFTER, MORE_CHECKPOINTS])
def test_stopped_at_any_step_it_goes_on_to_the_same_bytes(tmp_path: Path, stores: Any, after: Any) -> None:
    arrays, old, new = stores(after)
    for step in itertools.count():
        path = Path(shutil.copytree(old, tmp_path / f"{step}"))
        try:
            grow(MortalFolder(path, step, lambda: None), after, arrays)
            break
        except KilledError:
            if not _is_done(path, after):
                grow(Folder(path), after, arrays)
            assert files(path) == files(new)
    assert step > 20


def _is_done(path: Path, after: Any) -> bool:
    """Whether only the journal was left, which the append itself then removes."""
    store = Store.open(path)
    same = (store.n_examples, store.n_checkpoints) == (after.n_examples, after.n_checkpoints)
    if same and not place_of(below(path, STAGING)).exists("manifest.json"):
        take_over(Folder(path))
        return True
    return False


def test_while_it_grows_what_is_there_is_whole(tmp_path: Path) -> None:
    arrays = whole_arrays(tmp_path / "largest")
    store = filled(Store.create(tmp_path / "s", BEFORE, examples(10)), arrays)
    fingerprint = store.content_fingerprint()
    Journal.of(BEFORE, AFTER, {}, {}).write(store.place)
    growing = filled(begin(store.place, examples(17)), arrays)
    assert growing.is_complete
    assert verify(growing).ok
    assert verify(store).ok
    assert store.content_fingerprint() == fingerprint
    assert Store.open(below(tmp_path / "s", STAGING)).n_examples == 17


def test_without_a_journal_nothing_is_staged(tmp_path: Path) -> None:
    Store.create(tmp_path / "s", BEFORE, examples(10))
    with pytest.raises(StoreNotFoundError, match=f"no {JOURNAL}"):
        Store.open(below(tmp_path / "s", STAGING))
