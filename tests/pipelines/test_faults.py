"""Workers that die, examples that cannot be digested, schedulers that go: what is lost (nothing) and what is said."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gradstore
from gradstore.errors import (
    BadExamplesError,
    SchedulerError,
    StoreMismatchError,
    StoreWriteError,
    WorkerMismatchError,
)
from gradstore.store import Store
from gradstore_pipelines.executors import connect, executor_for
from gradstore_pipelines.progress import Silent
from gradstore_pipelines.settings import SettingsError
from gradstore_pipelines.stage import Unit
from gradstore_pipelines.stages.sketch import SketchStage
from gradstore_pipelines.where import Where
from tests.pipelines import dask_processes
from tests.pipelines.faulty_builds import MARKED, N, content

HERE = Path(__file__).parent
ALWAYS = 10**6

Build = Callable[..., Path]
Fault = Callable[[str, int], None]


@pytest.fixture(scope="module")
def scheduler(folder: Path) -> Iterator[str]:
    """Two workers that outlive builds."""
    with ExitStack() as running:
        with pytest.MonkeyPatch.context() as patch:  # fewer deaths, for a worker takes seconds to come back
            patch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "1")
            address, _ = running.enter_context(dask_processes.scheduler(folder))
        for _ in range(2):
            at_work = dask_processes.worker(address, environment={"GRADSTORE_FAULTS": str(folder / "faults")})
            running.enter_context(at_work)
        yield address


def test_workers_of_a_scheduler_write_the_same_bytes(build_at: Build, whole: Path, scheduler: str) -> None:
    assert content(build_at(scheduler=scheduler)) == content(whole)


def test_a_unit_whose_worker_is_killed_twice_is_done_by_the_third(
    build_at: Build, whole: Path, scheduler: str, fault: Fault, folder: Path
) -> None:
    fault("kill", 2)
    assert content(build_at(scheduler=scheduler)) == content(whole)
    assert (folder / "faults" / "kill").read_text() == "0"


@pytest.mark.parametrize("kind", ["raise", "memory"])
@pytest.mark.parametrize("away", [False, True])
def test_a_poison_example_is_named_and_the_rest_is_done(
    build_at: Build, scheduler: str, fault: Fault, tmp_path: Path, whole: Path, kind: str, away: bool
) -> None:
    fault(kind, ALWAYS)
    with pytest.raises(BadExamplesError, match=rf"checkpoint 0, shard 4, example '{MARKED}': Faulty\.loss raised"):
        build_at(**({"scheduler": scheduler} if away else {}))
    assert list(Store.open(tmp_path / "store").pending()) == [(0, 4)]
    fault(kind, 0)
    assert content(build_at()) == content(whole)


def test_a_full_disk_is_told_at_once(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _without(whole, tmp_path, 0, 1, 2)
    tried: list[int] = []

    def full(self: SketchStage, unit: Unit, advance: object = None) -> None:
        tried.append(unit.shard)
        raise StoreWriteError("Cannot write: no space. Free space.")

    monkeypatch.setattr(SketchStage, "run_unit", full)
    with pytest.raises(StoreWriteError, match="Free space"):
        executor_for(Where()).run(SketchStage(store, 256, "cpu"), Silent(), total=N, done=0)
    assert tried == [0]


def test_a_copy_of_the_data_is_read_once_and_accepted_and_other_data_are_refused(
    whole: Path, tmp_path: Path, folder: Path, scheduler: str
) -> None:
    store = _without(whole, tmp_path, 0)
    stage = SketchStage(store, 256, "cpu", stamp="of a copy elsewhere")
    assert executor_for(Where(scheduler=scheduler)).run(stage, Silent(), total=N, done=0) == 1
    assert content(store) == content(whole)
    rows = np.load(folder / "rows.npy")
    Store.open(store).discard(0, 0)
    other = SketchStage(store, 256, "cpu", stamp="of other data")
    with _changed(folder / "rows.npy", rows[::-1]), pytest.raises(WorkerMismatchError, match="content is"):
        executor_for(Where(scheduler=scheduler)).run(other, Silent(), total=N, done=0)
    assert list(Store.open(store).pending()) == [(0, 0)]


def test_a_store_that_was_made_anew_elsewhere_is_refused(whole: Path, tmp_path: Path) -> None:
    store = Store.open(_without(whole, tmp_path, 0))
    stage = SketchStage(store.location, 256, "cpu", manifest="of the store before")
    with pytest.raises(StoreMismatchError, match="another one here"):
        stage.run_unit(Unit(0, 0))


def test_a_worker_with_another_version_is_refused_naming_both(
    folder: Path, whole: Path, tmp_path: Path, scheduler: str
) -> None:
    shutil.copytree(Path(gradstore.__file__).parent, tmp_path / "other" / "gradstore")
    file = tmp_path / "other" / "gradstore" / "__init__.py"
    file.write_text(file.read_text().replace(gradstore.__version__, "0.0.1"))
    store = _without(whole, tmp_path, 0, 1)
    environment = {"PYTHONPATH": f"{tmp_path / 'other'}:{HERE.parents[1] / 'pipelines'}"}
    with dask_processes.scheduler(tmp_path) as (address, _), dask_processes.worker(address, environment=environment):
        stage = SketchStage(store, 256, "cpu")
        with pytest.raises(WorkerMismatchError, match=f"gradstore 0.0.1 instead of {gradstore.__version__}"):
            executor_for(Where(scheduler=address)).run(stage, Silent(), total=N, done=0)
    assert len(list(Store.open(store).pending())) == 2


def test_a_scheduler_over_tls_that_goes_is_told_and_the_same_command_goes_on(
    build_at: Build, whole: Path, folder: Path, fault: Fault, tmp_path: Path
) -> None:
    fault("sleep", ALWAYS)
    environment = {"GRADSTORE_FAULTS": str(folder / "faults")}
    tls = certificates(tmp_path)
    options = [word for name, file in tls.items() for word in (f"--{name.replace('_', '-')}", str(file))]
    with (
        dask_processes.scheduler(tmp_path, "--protocol", "tls", *options) as (address, process),
        dask_processes.worker(address, *options, environment=environment),
    ):
        killer = threading.Thread(target=_when_begun, args=(tmp_path / "store", process.kill))
        killer.start()
        with pytest.raises(SchedulerError, match=r"The scheduler of tls://.* has gone.*run the same command"):
            build_at(scheduler=address, **tls)
        killer.join()
    fault("sleep", 0)
    assert content(build_at()) == content(whole)


def test_no_scheduler_is_said_within_seconds(build_at: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "_CONNECT_S", 1)
    with pytest.raises(SchedulerError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:1 .*dask scheduler"):
        build_at(scheduler="tcp://127.0.0.1:1")


@pytest.mark.parametrize(
    ("workers", "device", "found"),
    [(2, "cpu", []), (2, "cuda", ["0", "1"]), (1, "cuda:1", [])],
)
def test_each_worker_is_given_one_gpu(
    monkeypatch: pytest.MonkeyPatch, workers: int, device: str, found: list[str]
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert connect.gpus_for(workers, device) == found


def test_workers_share_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,7")
    assert connect.gpus_for(2, "cuda") == ["3", "7"]
    with pytest.raises(SettingsError, match="--workers is 3 and torch sees 2 GPUs"):
        connect.gpus_for(3, "cuda")
    with pytest.raises(SettingsError, match="--device cuda:1 is one GPU"):
        connect.gpus_for(2, "cuda:1")


def certificates(folder: Path) -> dict[str, Path]:
    """One authority, certificate and key for all roles."""
    if shutil.which("openssl") is None:
        pytest.skip("making certificates needs openssl")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return {"tls_ca_file": cert, "tls_cert": cert, "tls_key": key}


def _without(whole: Path, tmp_path: Path, *shards: int) -> Path:
    """A copy of the store in which these shards are still to do."""
    shutil.copytree(whole, tmp_path / "copy")
    for shard in shards:
        Store.open(tmp_path / "copy").discard(0, shard)
    return tmp_path / "copy"


@contextlib.contextmanager
def _changed(file: Path, rows: np.ndarray[Any, Any]) -> Iterator[None]:
    before, times = file.read_bytes(), file.stat()
    np.save(file, rows)
    yield
    file.write_bytes(before)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def _when_begun(store: Path, act: Callable[[], None]) -> None:
    """When the first shard is there."""
    deadline = time.monotonic() + 60
    while not list(store.glob("commits/*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    act()
