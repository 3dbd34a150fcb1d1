"""Where units run: in process, or on Dask workers of this machine, of a scheduler, or in jobs of a cluster."""

from __future__ import annotations

from pathlib import Path

from gradstore_pipelines.stage import Executor
from gradstore_pipelines.where import Where


def executor_for(where: Where, *, device: str = "cpu", folder: Path | None = None) -> Executor:
    """The executor of a place.

    Args:
        device: on which units compute: each local worker is given a GPU of its own where it is `cuda`.
        folder: for the logs of jobs, seen by all nodes; the working directory by default.
    """
    if not (where.workers or where.scheduler or where.cluster):
        from gradstore_pipelines.executors.local import LocalExecutor

        return LocalExecutor()
    from gradstore_pipelines.executors.dask import DaskExecutor

    return DaskExecutor(where, device, folder or Path.cwd())


__all__ = ["executor_for"]
