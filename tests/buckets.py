"""A bucket for tests: moto's S3 in a process of its own, which keeps to conditional puts as the real one does."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from tests.processes import ended

BUCKET = "gradstore-tests"


@contextmanager
def s3(cache: Path) -> Iterator[str]:
    """The URL of an empty bucket; the environment leads to it, and to `cache`, until the block ends."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
        "GRADSTORE_CACHE": str(cache),
    }
    with mock.patch.dict(os.environ, environment):
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with ended(server):
            _make_bucket(f"{endpoint}/{BUCKET}")
            yield f"s3://{BUCKET}"


def _make_bucket(url: str) -> None:
    """Once the server answers."""
    for _ in range(600):
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="PUT")).close()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
        else:
            return
    raise TimeoutError("moto's server did not answer within 30 s.")
