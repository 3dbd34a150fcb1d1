"""Where units run: in process, or on Dask workers."""

from __future__ import annotations

from gradstore_pipelines.stage import Executor


def executor_for(workers: int) -> Executor:
    """0: in process; more: that many local processes of one thread each."""
    if workers == 0:
        from gradstore_pipelines.executors.local import LocalExecutor

        return LocalExecutor()
    from gradstore_pipelines.executors.dask import DaskExecutor

    return DaskExecutor(workers)


__all__ = ["executor_for"]
