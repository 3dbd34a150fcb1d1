from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gradstore.errors import MissingExtraError
from gradstore_pipelines.cluster_table import ClusterTable
from gradstore_pipelines.executors import executor_for, jobs
from gradstore_pipelines.executors.code import Code, code_here
from gradstore_pipelines.executors.local import LocalExecutor
from gradstore_pipelines.settings import BuildSettings, SettingsError
from gradstore_pipelines.where import Tls, Where

TABLE = """
[cluster]
kind = "pbs"
jobs = 3
memory = "8GB"
queue = "long"
account = "physics"
directives = ["-l ngpus=1"]
"""


def _settings(**changes: Any) -> BuildSettings:
    return BuildSettings(source="rows.npy", store="rows.store", **changes)


def test_nothing_said_is_this_process() -> None:
    assert isinstance(executor_for(_settings().where()), LocalExecutor)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"workers": -1}, "--workers is -1"),
        ({"workers": 2, "scheduler": "tcp://a:1"}, "--workers and --scheduler are different places"),
        ({"scheduler": "host:8786"}, "--scheduler is 'host:8786'; write it like tcp://host:8786"),
        ({"scheduler": "tls://host:8786"}, "needs --tls-ca-file, --tls-cert and --tls-key"),
        ({"scheduler": "tcp://a:1", "tls_cert": "a.pem"}, "--tls-ca-file and --tls-key is missing"),
        ({"cluster": "nowhere.toml"}, "--cluster 'nowhere.toml': there is no such file"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        _settings(**changes)


def test_tls_files_must_be_there_and_have_something_to_secure(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"--tls-ca-file 'ca\.pem': there is no such file"):
        Tls(ca_file=Path("ca.pem"), cert=Path("c.pem"), key=Path("k.pem"))
    file = tmp_path / "all.pem"
    file.touch()
    with pytest.raises(SettingsError, match="go with --scheduler or --cluster"):
        Where(workers=1, tls=Tls(ca_file=file, cert=file, key=file))


def test_a_cluster_is_a_table_in_a_file_or_in_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(TABLE)
    found = _settings(cluster=tmp_path / "c.toml").where().cluster
    assert found == ClusterTable(
        kind="pbs", jobs=3, memory="8GB", queue="long", account="physics", directives=("-l ngpus=1",)
    )
    assert _settings(cluster=found).where().cluster == found
    (tmp_path / "c.toml").write_text(TABLE.replace("[cluster]", ""))
    assert ClusterTable.read(tmp_path / "c.toml") == found


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("jbos = 2", "jobs"),
        ("jobs = 0", "jobs is 0; it must be at least 1"),
        ('kind = "condor"', "condor"),
        ('memory = "much"', "memory is 'much'; write it like 16GB"),
        ('walltime = "two hours"', "write it like 04:00:00"),
        ("jobs =", "cannot be read as TOML"),
    ],
)
def test_a_table_with_a_mistake_is_refused(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "c.toml").write_text(line)
    with pytest.raises(SettingsError, match=words):
        ClusterTable.read(tmp_path / "c.toml")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("slurm", ["#SBATCH -p long", "#SBATCH -A me", "#SBATCH -t 02:00:00", "#SBATCH --mem=8G", "#SBATCH -l x"]),
        ("pbs", ["#PBS -q long", "#PBS -A me", "walltime=02:00:00", "#PBS -l x"]),
        ("sge", ["#$ -q long", "#$ -P me", "h_rt=02:00:00", "#$ -l x"]),
        ("lsf", ["#BSUB -q long", "#BSUB -P", "#BSUB -W 02:00", "#BSUB -l x"]),
    ],
)
def test_one_table_serves_every_batch_system(tmp_path: Path, kind: Any, words: list[str]) -> None:
    table = ClusterTable(
        kind=kind, queue="long", account="me", memory="8GiB", processes=2, walltime="02:00:00", directives=("-l x",)
    )
    watched = jobs._Jobs(table, tmp_path, print)
    arguments = jobs._arguments(table, None, tmp_path)
    kept = {name: value for name, value in arguments.items() if name not in ("scheduler_options", "silence_logs")}
    script = jobs._cluster_class(kind, watched).job_cls("tcp://me:1", name="w", **kept).job_script()
    assert [word for word in words if word not in script] == []
    assert "--nthreads 1 " in script
    assert "--nworkers 2 " in script
    assert script.index("trap 'echo $?") < script.index("distributed.cli.dask_worker")


def test_jobs_without_dask_jobqueue_name_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(jobs._CLASSES, "slurm", ("no_such_module", "Cluster"))
    with pytest.raises(MissingExtraError, match=r"pip install 'gradstore\[cluster\]'"):
        jobs._cluster_class("slurm", jobs._Jobs(ClusterTable(), tmp_path, print))


def test_a_job_that_ends_when_others_have_come_is_said_and_no_error(tmp_path: Path) -> None:
    said: list[str] = []
    watched = jobs._Jobs(ClusterTable(), tmp_path, said.append)
    watched.refused.append(RuntimeError("Command exited\nstderr:\nsbatch: error: too many jobs\n"))
    watched.check(1)
    watched.check(1)
    assert said == ["The slurm queue refuses a job: sbatch: error: too many jobs"]


def test_a_gpu_is_asked_of_the_workers_where_this_machine_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    away = _settings(scheduler="tcp://a:1", device="cuda")
    assert away.sketching_device() == "cuda"
    assert _settings(scheduler="tcp://a:1").sketching_device() == "auto"


def test_code_is_the_same_in_one_process_and_tells_versions_apart() -> None:
    here = code_here()
    assert here.differences(code_here()) == []
    other = Code(here.gradstore, "0" * 12, here.torch, here.numpy)
    assert here.differences(other) == [f"sources {here.sources} instead of 000000000000"]
