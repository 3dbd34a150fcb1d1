"""Workers in the jobs of a batch system, through dask-jobqueue.

What it leaves open is closed here. `adapt` replaces a cancelled job where `scale` does not (measured on a real SLURM).
A submission that the batch system refuses shows only when the cluster is closed, and a worker that does not start
only in its job's log: both would be an endless wait. So each submission is watched, and each job's shell notes when it
ends: a job that ends before its worker has connected is an error, with the job's own words.
"""

from __future__ import annotations

import importlib
import logging
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
from distributed.core import Status  # before dask's settings are changed: it has some of its own

from gradstore.errors import JobError, MissingExtraError
from gradstore_pipelines.cluster_table import ClusterTable
from gradstore_pipelines.executors.connect import OWN_SCHEDULER, security_of
from gradstore_pipelines.where import Tls

_CLASSES = {
    "slurm": ("dask_jobqueue.slurm", "SLURMCluster"),
    "pbs": ("dask_jobqueue.pbs", "PBSCluster"),
    "sge": ("dask_jobqueue.sge", "SGECluster"),
    "lsf": ("dask_jobqueue.lsf", "LSFCluster"),
}
_ACCOUNT = {"slurm": "account", "pbs": "account", "sge": "project", "lsf": "project"}
_GIVE_UP_S = 40  # a worker that does not reach the scheduler ends, and its job with it
_SHOWN_LINES = 20

Check = Callable[[int], None]


@contextmanager
def jobs_of(
    table: ClusterTable, tls: Tls | None, logs: Path, say: Callable[[str], None]
) -> Iterator[tuple[Any, Check]]:
    """Keep the table's jobs running.

    Yields:
        The cluster, and a check to be called now and then with the number of workers: it raises JobError when a job
        has failed and no worker has ever come.

    Raises:
        MissingExtraError: dask-jobqueue is not installed.
    """
    logs = logs.absolute()
    logs.mkdir(parents=True, exist_ok=True)
    jobs = _Jobs(table, logs, say)
    importlib.import_module("distributed")  # whose defaults, were they to come within, would go with the block
    with dask.config.set(OWN_SCHEDULER):
        cluster = _cluster_class(table.kind, jobs)(**_arguments(table, tls, logs))
    try:
        cluster.adapt(minimum_jobs=table.jobs, maximum_jobs=table.jobs, interval="1s")
        yield cluster, jobs.check
    finally:
        # Where a submission was refused, closing fails half-way, with an error that says less than the one we have.
        with suppress(Exception):
            cluster.close()
        jobs.cancel(cluster.job_cls)


@dataclass
class _Jobs:
    """What became of each job."""

    table: ClusterTable
    logs: Path
    say: Callable[[str], None]
    refused: list[Exception] = field(default_factory=list)
    started: dict[str, str] = field(default_factory=dict)
    """job id -> name of its worker"""
    _seen_workers: bool = False
    _told: set[str] = field(default_factory=set)

    def check(self, n_workers: int) -> None:
        """Raises JobError: a job failed, and there has never been a worker."""
        self._seen_workers |= n_workers > 0
        for trouble in self._troubles():
            if not self._seen_workers:
                raise JobError(f"{trouble}\nCorrect the [cluster] table, then run the same command.")
            if trouble not in self._told:
                self._told.add(trouble)
                self.say(trouble)

    def cancel(self, kind: Any) -> None:
        """End all jobs that have not ended yet."""
        for job in self.started:
            if not self._ended(job).is_file():
                subprocess.run([*shlex.split(kind.cancel_command), job], capture_output=True, check=False)

    def _ended(self, job: str) -> Path:
        return self.logs / f"{job}.ended"

    def _troubles(self) -> Iterator[str]:
        for error in self.refused:
            yield f"The {self.table.kind} queue refuses a job: {_stderr(error)}"
        if self._seen_workers:
            return  # a job that ends later on has reached its time, or was cancelled: it is replaced
        for job in self.started:
            ended = self._ended(job)
            if ended.is_file():
                yield (
                    f"Job {job} ended with status {ended.read_text().strip() or '?'} before its worker could connect. "
                    f"Its log in {self.logs} ends:\n{self._log_of(job)}"
                )

    def _log_of(self, job: str) -> str:
        files = sorted(file for file in self.logs.glob(f"*{job}*") if file.suffix != ".ended")
        lines = [line for file in files for line in file.read_text(errors="replace").splitlines() if line.strip()]
        return "\n".join(f"  {line}" for line in lines[-_SHOWN_LINES:]) or "  (nothing)"


def _cluster_class(kind: str, jobs: _Jobs) -> Any:
    """dask-jobqueue's own, whose jobs tell what becomes of them."""
    module, name = _CLASSES[kind]
    try:
        base = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise MissingExtraError(
            f"Jobs of a batch system need dask-jobqueue ({error}). Install it: pip install 'gradstore[cluster]'"
        ) from error

    class Watched(base.job_cls):  # type: ignore[name-defined,misc]
        async def start(self) -> None:
            try:
                await super().start()
            except Exception as error:
                jobs.refused.append(error)
                self.status = Status.failed  # or its cluster cannot be closed
                raise
            jobs.started[self.job_id] = self.name

    return type(name, (base,), {"job_cls": Watched})


def _arguments(table: ClusterTable, tls: Tls | None, logs: Path) -> dict[str, Any]:
    asked = {
        "queue": table.queue,
        _ACCOUNT[table.kind]: table.account,
        "interface": table.interface,
        "python": table.python,
        "security": security_of(tls),
    }
    scheduler = {"dashboard_address": "127.0.0.1:0", **({"host": table.host} if table.host else {})}
    return {
        **{name: value for name, value in asked.items() if value is not None},
        "cores": table.processes,
        "processes": table.processes,
        "memory": table.memory,
        "walltime": table.walltime,
        "job_extra_directives": list(table.directives),
        "job_script_prologue": [*_notes_of_the_shell(logs), *table.prologue],
        "worker_extra_args": list(table.worker_arguments),
        "log_directory": str(logs),
        "death_timeout": _GIVE_UP_S,
        "scheduler_options": scheduler,
        "silence_logs": logging.CRITICAL,
    }


def _notes_of_the_shell(logs: Path) -> list[str]:
    """All of a job's words in one file, whatever the batch system calls its own, and another when it ends."""
    return [
        "JOB_ID=${SLURM_JOB_ID:-${PBS_JOBID:-${LSB_JOBID:-$JOB_ID}}}",
        f"GRADSTORE_JOB={shlex.quote(str(logs))}/${{JOB_ID%%.*}}",
        "trap 'echo $? > \"$GRADSTORE_JOB.ended\"' EXIT",
        'exec > "$GRADSTORE_JOB.log" 2>&1',
    ]


def _stderr(error: Exception) -> str:
    """What a submitting command said, without dask-jobqueue's frame."""
    return str(error).rpartition("stderr:")[2].strip() or str(error)
