"""A Dask client of whatever place was asked for, and nothing left running afterwards that this started.

Rows never pass through the scheduler, so one that runs in this process is enough for all the places that start their
own.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradstore.errors import SchedulerError
from gradstore_pipelines.settings_error import SettingsError
from gradstore_pipelines.where import Tls, Where

_CONNECT_S = 10

# Units wait at the scheduler, one at a time goes to a worker: when that dies, no other is suspected of it.
OWN_SCHEDULER = {"distributed.scheduler.worker-saturation": 1.0, "distributed.scheduler.allowed-failures": 2}


@dataclass(frozen=True)
class Connected:
    """Dask workers at hand."""

    client: Any
    place: str
    """for messages"""
    check: Callable[[int], None] = lambda n_workers: None
    """called now and then with the workers there are; raises when none will come"""


@contextmanager
def connected(where: Where, device: str, folder: Path, say: Callable[[str], None]) -> Iterator[Connected]:
    """Start or find workers.

    Raises:
        SchedulerError: no answer from the scheduler, or it does not trust this client.
        JobError: the batch system refuses the jobs.
    """
    if where.scheduler is not None:
        with _client(where.scheduler, where.tls) as client:
            yield Connected(client, where.scheduler)
    elif where.cluster is not None:
        from gradstore_pipelines.executors.jobs import jobs_of

        logs = where.cluster.logs or folder / "jobs"
        with jobs_of(where.cluster, where.tls, logs, say) as (cluster, check), _client(cluster, None) as client:
            yield Connected(client, f"the {where.cluster.kind} jobs", check)
    else:
        with _local(where.workers, gpus_for(where.workers, device)) as client:
            yield Connected(client, "this machine")


def gpus_for(workers: int, device: str) -> list[str]:
    """What each worker sees as its only GPU, as CUDA_VISIBLE_DEVICES names it; nothing where none is asked for.

    Raises:
        SettingsError: more workers than GPUs, or all were to use one.
    """
    if not device.startswith("cuda"):
        return []
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = visible.split(",") if visible else [str(number) for number in range(torch.cuda.device_count())]
    if device != "cuda" and workers > 1:
        raise SettingsError(f"--device {device} is one GPU, and --workers is {workers}. Use --device cuda: one each.")
    if workers > len(found):
        raise SettingsError(
            f"--workers is {workers} and torch sees {len(found)} GPUs; a GPU serves one process. "
            f"Use --workers {len(found)}."
        )
    return found[:workers] if device == "cuda" else []


@contextmanager
def _local(n_workers: int, gpus: Sequence[str]) -> Iterator[Any]:
    import dask
    from distributed import LocalCluster

    from gradstore_pipelines.executors.worker import LocalWorker

    with (
        dask.config.set(OWN_SCHEDULER),
        LocalCluster(
            n_workers=n_workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",  # the default port may be taken by another build
            host="127.0.0.1",
            silence_logs=logging.ERROR,
            memory_limit=0,  # a worker's own figure counts the page cache of the files it writes
        ) as cluster,
        _client(cluster, None) as client,
    ):
        client.register_plugin(LocalWorker(gpus))
        yield client


@contextmanager
def _client(to: Any, tls: Tls | None) -> Iterator[Any]:
    from distributed import Client

    try:
        client = Client(to, security=security_of(tls), timeout=_CONNECT_S, set_as_default=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise SchedulerError(
            f"No Dask scheduler answers at {to} within {_CONNECT_S} s ({error}). Start one with `dask scheduler`, and "
            "give its address, with the --tls files that it asks for, if any."
        ) from error
    with client:
        yield client


def security_of(tls: Tls | None) -> Any:
    """Dask's own word for it; None for none."""
    if tls is None:
        return None
    from distributed import Security

    ca, cert, key = (str(file.absolute()) for file in (tls.ca_file, tls.cert, tls.key))
    roles = {
        f"tls_{role}_{kind}": file
        for role in ("client", "scheduler", "worker")
        for kind, file in (("cert", cert), ("key", key))
    }
    return Security(tls_ca_file=ca, require_encryption=True, **roles)
