from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gradstore.errors import StoreWriteError
from gradstore.store import Store, verify
from gradstore.store.files import replacing, write_atomically
from gradstore.testing.store_kit import arrays_for, example_batches, fill, manifest_of, shard_rows_of

IDS = [f"x{row}" for row in range(11)]

# Writes shards over and over, so that a kill meets every step.
WRITER = """
import sys
from gradstore.store import Store
from gradstore.testing.store_kit import arrays_for, fill
store = Store.open(sys.argv[1])
arrays = arrays_for(store)
print("begun", flush=True)
while True:
    fill(store, *arrays)
    store.discard(0, 0)
    store.discard(1, 2)
"""


def write(store: Store, checkpoint: int, shard: int) -> None:
    store.write_shard(checkpoint, shard, shard_rows_of(store, checkpoint, shard, *arrays_for(store)))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "s", manifest_of(), example_batches(IDS))


def test_the_order_of_writing_leaves_no_trace(store: Store, tmp_path: Path) -> None:
    other = Store.create(tmp_path / "other", manifest_of(), example_batches(IDS))
    for checkpoint, shard in store.pending():
        write(store, checkpoint, shard)
    for checkpoint, shard in reversed(list(other.pending())):
        write(other, checkpoint, shard)
    assert bytes_of(store) == bytes_of(other)
    assert store.content_fingerprint() == other.content_fingerprint()


@pytest.mark.parametrize("delay", [0.0, 0.03])
def test_resuming_after_a_kill_gives_the_same_bytes(store: Store, tmp_path: Path, delay: float) -> None:
    whole = Store.create(tmp_path / "whole", manifest_of(), example_batches(IDS))
    fill(whole, *arrays_for(whole))
    with subprocess.Popen([sys.executable, "-c", WRITER, str(store.folder)], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"begun\n"
        time.sleep(delay)
        writer.send_signal(signal.SIGKILL)
    again = Store.create(store.folder, manifest_of(), example_batches(IDS))
    assert verify(again).ok
    fill(again, *arrays_for(again))
    assert bytes_of(again) == bytes_of(whole)


def test_files_without_a_record_are_not_committed_and_are_written_again(store: Store) -> None:
    write(store, 0, 1)
    whole = bytes_of(store)
    (store.folder / "commits" / "0-1.json").unlink()
    (store.folder / "latents" / "c.0.1.0").write_bytes(b"torn")
    again = Store.open(store.folder)
    assert not again.is_committed(0, 1)
    assert verify(again).ok
    assert set(verify(again).leftovers) == {"sketches/c.0.1.0", "norms/c.0.1", "losses/c.0.1", "latents/c.0.1.0"}
    write(again, 0, 1)
    assert bytes_of(again) == whole


def test_temporary_files_of_dead_processes_are_removed_and_those_of_living_ones_kept(store: Store) -> None:
    ours = temporary(store, os.getpid())
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    dead = temporary(store, ended.pid)
    assert set(verify(store).leftovers) == {f"norms/{ours.name}", f"norms/{dead.name}"}
    assert verify(store).ok
    assert store.remove_leftovers() == [dead]
    assert ours.exists()
    assert not dead.exists()


def test_a_process_that_has_ended_writes_no_more_though_nobody_has_asked_after_it(store: Store) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        dead = temporary(store, ended.pid)
        assert store.remove_leftovers() == [dead]


def test_a_temporary_file_of_another_host_is_removed_when_nobody_has_touched_it_for_an_hour(store: Store) -> None:
    foreign = store.folder / "commits" / ".tmp-00000000-1-0badcafe-0-0.json"
    foreign.write_bytes(b"")
    assert store.remove_leftovers() == []
    os.utime(foreign, (time.time() - 4000,) * 2)
    assert store.remove_leftovers() == [foreign]


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "Free space, then run the same command: everything committed is kept"),
        (errno.EDQUOT, "Free space"),
        (errno.EROFS, "Make the folder writable"),
        (errno.EACCES, "Make the folder writable"),
        (errno.EIO, "Check the file system"),
    ],
)
def test_a_write_that_fails_says_what_to_do_and_keeps_what_is_committed(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int, advice: str
) -> None:
    write(store, 0, 0)
    before = bytes_of(store)
    monkeypatch.setattr(os, "fsync", failing(code))
    with pytest.raises(StoreWriteError, match=f"Cannot write .*{advice}") as caught:
        write(store, 0, 1)
    assert caught.value.errno == code
    assert bytes_of(store) == before
    assert next(Store.open(store.folder).pending()) == (0, 1)


def test_a_full_disk_loses_nothing_and_the_build_goes_on_when_there_is_space(store: Store) -> None:
    """The kernel itself refuses the write: files may not grow beyond 32 bytes, as on a disk with that much left."""
    write(store, 0, 0)
    before = bytes_of(store)
    with file_size_limit(32), pytest.raises(StoreWriteError, match="Free space"):
        write(store, 0, 1)
    assert bytes_of(store) == before
    fill(store, *arrays_for(store))
    assert store.is_complete
    assert verify(store).ok


def test_a_full_disk_while_the_store_is_created_leaves_no_store(tmp_path: Path) -> None:
    with file_size_limit(256), pytest.raises(StoreWriteError, match=r"examples\.parquet.*Free space"):
        Store.create(tmp_path / "s", manifest_of(), example_batches(IDS))
    assert Store.create(tmp_path / "s", manifest_of(), example_batches(IDS)).n_examples == 11


def test_an_old_file_stays_whole_when_its_replacement_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "f", b"old")
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    with pytest.raises(StoreWriteError):
        write_atomically(tmp_path / "f", b"new")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("f", b"old")]


def test_the_record_is_written_after_all_files_are_synced(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name is given to a file that is synced, and its folder is synced after; the record comes last."""
    events: list[str] = []
    sync, replace, link = os.fsync, Path.replace, Path.hardlink_to

    def recorded_sync(descriptor: int) -> None:
        events.append(f"sync {name_of(descriptor)}")
        sync(descriptor)

    def recorded_replace(file: Path, target: Path) -> Path:
        events.append(f"rename {target.name}")
        return replace(file, target)

    def recorded_link(file: Path, target: Path) -> None:
        events.append(f"link {file.name}")
        link(file, target)

    monkeypatch.setattr(os, "fsync", recorded_sync)
    monkeypatch.setattr(Path, "hardlink_to", recorded_link)
    monkeypatch.setattr(Path, "replace", recorded_replace)
    write(store, 0, 0)
    expected: list[str] = []
    for folder, file in (
        ("sketches", "c.0.0.0"),
        ("norms", "c.0.0"),
        ("losses", "c.0.0"),
        ("latents", "c.0.0.0"),
    ):
        expected += [f"sync {file}", f"rename {file}", f"sync {folder}"]
    assert events == [*expected, "sync 0-0.json", "link 0-0.json", "sync commits"]


def name_of(descriptor: int) -> str:
    """The final name of an open file."""
    return Path(f"/proc/self/fd/{descriptor}").readlink().name.split("-", 4)[-1]


def failing(code: int) -> Any:
    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def temporary(store: Store, process: int) -> Path:
    """A temporary file as that process of this host would have left it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "getpid", lambda: process)
        with pytest.raises(KeyboardInterrupt), replacing(store.folder / "norms" / "c.0.0") as temp:
            raise KeyboardInterrupt
    temp.write_bytes(b"half")
    return temp


@contextmanager
def file_size_limit(n_bytes: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def bytes_of(store: Store) -> dict[str, bytes]:
    return {str(f.relative_to(store.folder)): f.read_bytes() for f in store.folder.rglob("*") if f.is_file()}
