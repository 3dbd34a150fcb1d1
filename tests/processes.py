"""Processes that tests start: each is ended when its test is over."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

_PATIENCE_S = 10


@contextmanager
def ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Terminated at the end, and killed where it does not heed that."""
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
