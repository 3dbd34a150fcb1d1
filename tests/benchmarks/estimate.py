"""What `gradstore build --dry-run` says, beside what the build then takes.

    python tests/benchmarks/estimate.py --examples 20000 --workers 0 2

For each number of workers: a dry run, then the build, each a process of its own, on synthetic 28 x 28 images. Bytes and
files are counted in the store, memory is the most that was resident (of the process, and of the largest of the
processes that it started), time is from start to exit. The estimate is to be within 25 % of the build.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_GRADSTORE = [sys.executable, "-m", "gradstore_cli"]


@dataclass(frozen=True)
class Taken:
    """What a real build made and took."""

    seconds: float
    memory: int
    """of the process, and of those it started, the largest, in bytes"""
    n_files: int
    n_bytes: int


def main() -> None:
    """Print one table a number of workers."""
    options = _options()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        data = Path(name) / "images.npy"
        np.save(data, np.random.default_rng(0).integers(0, 256, (options.examples, 28, 28), dtype=np.uint8))
        for workers in options.workers:
            store = Path(name) / f"{workers}.store"
            words = ["build", str(data), "--store", str(store), "--workers", str(workers), *options.more]
            start = time.perf_counter()
            guess = _dry_run(words)
            trial = time.perf_counter() - start
            print("\n".join(_table(options.examples, workers, guess, _build(words, store), trial)), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--folder", type=Path, help="where data and stores go, and are removed again")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="further options of build")
    return parser.parse_args()


def _dry_run(words: Sequence[str]) -> dict[str, Any]:
    ran = subprocess.run([*_GRADSTORE, *words, "--dry-run", "--json"], stdout=subprocess.PIPE, check=True)
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def _build(words: Sequence[str], store: Path) -> Taken:
    start = time.perf_counter()
    process = subprocess.Popen([*_GRADSTORE, *words])
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        sys.exit(f"the build failed with status {os.waitstatus_to_exitcode(status)}")
    sizes = [file.stat().st_size for file in store.rglob("*") if file.is_file()]
    return Taken(seconds, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024), len(sizes), sum(sizes))


def _table(examples: int, workers: int, guess: dict[str, Any], taken: Taken, trial: float) -> Iterator[str]:
    largest = max(guess["memory"], guess["memory_of_worker"])
    parts = ", ".join(f"{part} {guess[f'seconds_{part}']:.1f}" for part in ("starting", "training", "sketching"))
    rows = [
        ("seconds", guess["seconds"], taken.seconds),
        ("largest process, MB", largest / 1e6, taken.memory / 1e6),
        ("bytes", guess["n_bytes"], taken.n_bytes),
        ("files", guess["n_files"], taken.n_files),
    ]
    yield from ("", f"{examples:,} examples, {workers} workers; the dry run took {trial:.1f} s ({parts})", "")
    yield from ("| | estimate | build | off by |", "|---|---|---|---|")
    for name, said, found in rows:
        yield f"| {name} | {said:,.1f} | {found:,.1f} | {said / found - 1:+.1%} |"


if __name__ == "__main__":
    main()
