"""A Dask scheduler and workers as a user starts them: processes of their own, ended by their ids."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.processes import ended

_START_S = 60


@contextmanager
def scheduler(folder: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Its address and its process."""
    file = folder / "scheduler.json"
    command = ["dask_scheduler", "--scheduler-file", str(file), "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    with _running([*command, *options], {}) as process:
        deadline = time.monotonic() + _START_S
        while not (file.exists() and file.read_text().endswith("}")):
            assert time.monotonic() < deadline, "the scheduler does not start"
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"], process


@contextmanager
def worker(address: str, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[None]:
    """A worker of one thread, with a nanny that replaces it when it dies."""
    command = ["dask_worker", address, "--nthreads", "1", "--memory-limit", "0", "--no-dashboard", *options]
    with _running(command, environment or {}):
        yield


@contextmanager
def _running(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.{command[0]}", *command[1:]],
        env={**os.environ, **environment},
        cwd=Path(__file__).parent,  # which is first on its path: not a folder with a gradstore
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with ended(process):
        yield process
