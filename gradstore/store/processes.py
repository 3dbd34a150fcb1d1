"""Whether a process of this machine still runs."""

from __future__ import annotations


def started(pid: int) -> float | None:
    """When it started, in seconds since the epoch; None when it has ended.

    One that has ended and that its parent has not yet asked after (a zombie) has ended: that can take seconds where a
    build was killed whole, and it writes no more.
    """
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.NoSuchProcess:
        return None
