"""Builds in the jobs of a real SLURM that this machine runs for itself."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import distributed.deploy  # noqa: F401  settings of its own, which must be there before one is changed
import pytest

from gradstore.errors import JobError
from gradstore_pipelines.build_store import build
from gradstore_pipelines.cluster_table import ClusterTable
from gradstore_pipelines.executors import executor_for
from gradstore_pipelines.progress import Silent
from gradstore_pipelines.stages.sketch import SketchStage
from gradstore_pipelines.where import Where
from tests.cluster.slurm import NODES, Slurm, slurm, why_not
from tests.pipelines.faulty_builds import N, content, make_data, settings_for

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Slurm]:
    with pytest.MonkeyPatch.context() as patch, slurm() as running:
        patch.setenv("SLURM_CONF", running.environment["SLURM_CONF"])
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        patch.setenv("DASK_JOBQUEUE__SLURM__LOCAL_DIRECTORY", str(running.folder))
        yield running


def _table(**changes: Any) -> ClusterTable:
    here = {"host": "127.0.0.1", "worker_arguments": ("--host", "127.0.0.1")}
    return ClusterTable(**{"kind": "slurm", "queue": "batch", "memory": "2GB", **here, **changes})


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A store of which nothing is sketched yet, and beside it the finished one."""
    from gradstore.store import Store

    make_data(tmp_path)
    for name in ("whole", "begun"):
        build(settings_for(tmp_path, tmp_path / name))
    begun = Store.open(tmp_path / "begun")
    for shard in range(begun.n_shards):
        begun.discard(0, shard)
    return tmp_path / "begun"


def _run(store: Path, table: ClusterTable) -> int:
    executor = executor_for(Where(cluster=table), folder=store / "build")
    return executor.run(SketchStage(store, 256, "cpu"), Silent(), total=N, done=0)


def test_a_cancelled_job_is_replaced_on_another_node_and_the_bytes_are_the_same(
    cluster: Slurm, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADSTORE_FAULTS", str(begun.parent / "faults"))
    (begun.parent / "faults" / "sleep").write_text("30")  # the job is cancelled while it has shard 4 in hand
    nodes: list[str] = []

    def cancel() -> None:
        ((first, node),) = cluster.wait_for_jobs(1).items()
        while (begun.parent / "faults" / "sleep").read_text() == "30":
            pass
        cluster.run("scontrol", "update", f"nodename={node}", "state=drain", "reason=test")
        cluster.run("scancel", first)
        (begun.parent / "faults" / "sleep").write_text("0")
        (other,) = cluster.wait_for_jobs(1, without=frozenset({first})).values()
        nodes.extend([node, other])

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "1s"}):
        _run(begun, _table(jobs=1, logs=begun.parent / "logs"))
    canceller.join()
    cluster.run("scontrol", "update", f"nodename={nodes[0]}", "state=resume")
    cluster.wait_until_empty()
    assert sorted(nodes) == sorted(NODES)
    assert content(begun) == content(begun.parent / "whole")


def test_a_partition_that_does_not_exist_is_told_in_the_words_of_slurm(cluster: Slurm, begun: Path) -> None:
    with pytest.raises(JobError, match=r"The slurm queue refuses a job: sbatch: error: invalid partition .*nosuch"):
        _run(begun, _table(queue="nosuch"))


def test_a_worker_that_cannot_start_is_told_in_its_own_words(cluster: Slurm, begun: Path) -> None:
    with pytest.raises(JobError, match=r"(?s)Job \d+ ended with status 127 before .*/no/such/python: No such file"):
        _run(begun, _table(python="/no/such/python"))
    cluster.wait_until_empty()


def test_a_prologue_that_fails_is_told_in_its_own_words(cluster: Slurm, begun: Path) -> None:
    with pytest.raises(JobError, match=r"(?s)ended with status 3 .*module: (command )?not found"):
        _run(begun, _table(prologue=("module load cuda", "exit 3")))
