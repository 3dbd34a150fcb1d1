"""`gradstore submit` under a real SLURM: jobs that are requeued, warned, cancelled, and several on one store."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gradstore.errors import StoreNotFoundError
from gradstore.store import Store
from gradstore_pipelines.recipe import read_recipe
from gradstore_pipelines.run_recipe import run_recipe
from tests.cluster.slurm import Slurm, slurm, why_not

REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

TASK = """
import os, time
import torch
from torch import nn
from gradstore import Task

class Slow(Task):
    encoder = "*"
    def build(self):
        return nn.Linear(8, 4)
    def latent(self, model, batch):
        return model(batch.inputs)
    def loss(self, model, batch, noise):
        time.sleep(float(os.environ.get("SECONDS_A_LOSS", 0)))
        return model(batch.inputs).square().sum(1)
"""
RECIPE = """
source = "rows.npy"
store = "rows.store"
model = "slow.py:Slow"
device = "cpu"
[train]
epochs = 1
n_checkpoints = 1
[build]
sketch_dim = 16
shard_rows = 64
[rank]
output = "ranked.csv"
signal = "loss"
[submit]
memory = "1GB"
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    with slurm() as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).random((640, 8), np.float32))
    (tmp_path / "slow.py").write_text(TASK)
    (tmp_path / "rows.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Job:
    """A recipe handed over to SLURM; slow enough to be met half-way."""

    def __init__(self, cluster: Slurm, folder: Path, *changes: str) -> None:
        self._cluster, self.store = cluster, folder / "rows.store"
        words = [word for change in changes for word in ("--set", change)]
        environment = {**cluster.environment, "SECONDS_A_LOSS": "0.3", "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "gradstore_cli", "submit", "rows.toml", "--now", *words]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        self.number = ran.stderr.split()[-1]

    def wait_for_shards(self, count: int) -> int:
        """How many are committed, as soon as there are so many."""
        self._until(lambda: self.committed() >= count)
        return self.committed()

    def wait_for_state(self, *states: str) -> None:
        self._until(lambda: self.states() <= {*states})

    def again(self) -> None:
        """SLURM lets a job that came back wait for two minutes; here two seconds.

        Not less: a node refuses a job that starts in the second in which its former run was ended ("already killed").
        """
        self.wait_for_state("PENDING")
        self._cluster.run("scontrol", "update", f"jobid={self.number}", "starttime=now+2")

    def states(self) -> set[str]:
        """Of the job, or of each of its tasks."""
        lines = self._cluster.run("squeue", "--noheader", "--states=all", "--format=%i %T").splitlines()
        jobs = (line.split() for line in lines)
        return {state for number, state in jobs if number.split("_")[0] == self.number}

    def committed(self) -> int:
        try:
            return Store.open(self.store).n_committed
        except StoreNotFoundError:
            return 0

    def _until(self, true: Callable[[], bool], seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, self._words()
            time.sleep(0.1)

    def _words(self) -> str:
        """What SLURM and the job said, for the one who reads of a failure."""
        logs = [*self._cluster.folder.glob("slurm*.log"), *self.store.parent.glob("*.log")]
        return "\n".join([self._cluster.run("squeue", "--states=all"), *(log.read_text() for log in logs)])


def test_a_job_that_is_warned_and_one_that_is_requeued_go_on_to_the_same_bytes(cluster: Slurm, folder: Path) -> None:
    job = Job(cluster, folder)
    warned_at = job.wait_for_shards(1)
    cluster.run("scancel", "--batch", "--signal=TERM", job.number)  # what --signal=B:TERM@120 does
    job.again()
    requeued_at = job.wait_for_shards(warned_at + 2)
    cluster.run("scontrol", "requeue", job.number)  # what preemption does
    job.again()
    job.wait_for_state("COMPLETED")
    assert requeued_at < 10
    assert "Out of time: queued again." in (folder / f"gradstore-rows-{job.number}.log").read_text()
    run_recipe(read_recipe("rows.toml", ["store=here.store", "rank.output=here.csv"]))
    assert content(folder / "rows.store") == content(folder / "here.store")
    assert (folder / "ranked.csv").read_bytes() == (folder / "here.csv").read_bytes()


def test_a_job_that_is_cancelled_stays_away(cluster: Slurm, folder: Path) -> None:
    job = Job(cluster, folder)
    job.wait_for_shards(1)
    cluster.run("scancel", job.number)
    job.wait_for_state("CANCELLED")
    time.sleep(1)
    assert job.states() == {"CANCELLED"}
    assert 0 < job.committed() < 10


def test_two_jobs_share_the_shards_of_one_store(cluster: Slurm, folder: Path) -> None:
    job = Job(cluster, folder, "submit.jobs=2")
    job.wait_for_state("COMPLETED")
    logs = [log.read_text() for log in folder.glob("*.log")]
    made = [int(found[1]) for log in logs if (found := re.search(r"sketched by this run: (\d+)", log))]
    assert sum(made) == 10
    assert len(made) == 2
    assert min(made) > 0


def test_the_recipe_of_a_cluster_sketches_in_jobs(
    cluster: Slurm, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, cluster.environment[name])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # what jobs inherit
    Path("photos").mkdir()
    for row in range(40):
        pixels = np.random.default_rng(row).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{row}.png")
    small = ["image_size=8", "train.epochs=1", "train.n_checkpoints=1", "build.sketch_dim=32", "device=cpu"]
    jobs = ["cluster.jobs=1", "cluster.processes=1", "cluster.memory=1GB", "cluster.host=127.0.0.1"]
    recipe = read_recipe("cluster", [*small, *jobs])
    assert all(stage.did for stage in run_recipe(recipe))
    here = read_recipe("image-folder", [*small, "build.workers=0", "on_corrupt=skip"])
    run_recipe(here, until="build")
    cluster_records, own_records = (Path(str(r.build.store)) / "commits" / "0-0.json" for r in (recipe, here))
    assert cluster_records.read_bytes() == own_records.read_bytes()


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store, but for the record of the ranking, which names its outputs."""
    files = (file for file in sorted(store.rglob("*")) if file.is_file() and file.parent.name != "run")
    return {str(file.relative_to(store)): file.read_bytes() for file in files}
