"""Kills builds in a bucket at random moments: python tests/faults/bucket.py --kills 20

Every attempt is another machine as far as the store can tell: it has a cache of its own. Attempts alternate between no
workers and two. What is finished in the end must be, object for object, what one build makes that nobody interrupts.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from gradstore.store import Store, verify
from gradstore.store.place import place_of
from tests.buckets import s3

_ROWS = 6000


def main(n_kills: int, seed: int) -> int:
    """0 where every object is the same and the store verifies."""
    with tempfile.TemporaryDirectory() as folder, s3(Path(folder) / "cache") as bucket:
        data = Path(folder) / "rows.npy"
        np.save(data, np.random.default_rng(0).normal(size=(_ROWS, 32)).astype(np.float32))
        seconds = time.monotonic()
        _finish(data, f"{bucket}/whole", Path(folder) / "whole")
        seconds, moments = time.monotonic() - seconds, random.Random(seed)
        killed = [
            _killed(data, f"{bucket}/killed", Path(folder) / str(n), 2 * (n % 2), seconds * moments.uniform(0.3, 1.1))
            for n in range(n_kills)
        ]
        _finish(data, f"{bucket}/killed", Path(folder) / "last")
        same = _objects(f"{bucket}/whole") == _objects(f"{bucket}/killed")
        found = verify(Store.open(f"{bucket}/killed"))
        print(f"{sum(killed)} of {n_kills} attempts killed; same bytes: {same}; verifies: {found.ok}")
        return int(not (same and found.ok))


def _command(data: Path, store: str, workers: int) -> list[str]:
    words = ["build", str(data), "--store", store, "--epochs", "1", "--n-checkpoints", "2", "--sketch-dim", "256"]
    return [sys.executable, "-m", "gradstore_cli", *words, "--workers", str(workers)]


def _finish(data: Path, store: str, cache: Path) -> None:
    environment = {**os.environ, "GRADSTORE_CACHE": str(cache)}
    subprocess.run(_command(data, store, 0), env=environment, check=True, stderr=subprocess.DEVNULL)


def _killed(data: Path, store: str, cache: Path, workers: int, seconds: float) -> bool:
    """With its workers, which are of its process group; False where it was done before."""
    process = subprocess.Popen(
        _command(data, store, workers),
        env={**os.environ, "GRADSTORE_CACHE": str(cache)},
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def _objects(store: str) -> dict[str, bytes]:
    """Of the store, not about the build."""
    place = place_of(store)
    return {e.name: place.read(e.name) for e in place.entries() if not e.name.startswith("build/")}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    sys.exit(main(asked.kills, asked.seed))
