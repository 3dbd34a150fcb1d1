"""Millions of rows through the real stages: seconds, bytes, and the peak memory of every process.

    python tests/benchmarks/scale.py --rows 500000 5000000 --workers 2

Rows are synthetic, the model tiny, sketches have 512 numbers, there is one checkpoint: the pipeline itself is measured.
Every step is the real command in a process of its own; memory is the largest resident size of each process while it
ran, Dask's workers and the one that feeds them apart, looked at ten times a second. The files that a process has mapped
or read count for it only as long as it holds them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import torch

from gradstore.models.user_task import load_task

TASK = f"{Path(__file__).parent / 'scale_task.py'}:Tiny"
_LOOK_EVERY_S = 0.1


@dataclass(frozen=True)
class Run:
    """One command."""

    seconds: float
    peaks: tuple[int, ...]
    """bytes, of the command's own process first, then of those it started, the largest first"""


def main() -> None:
    """Print a Markdown table."""
    options = _options()
    lines = ["| rows | step | seconds | rows/s | peak memory of each process, MB | store, MB |", "|---" * 6 + "|"]
    for n_rows in options.rows:
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            for step, run in _steps(folder, n_rows, options.workers, options.rank):
                peaks = ", ".join(f"{peak / 1e6:.0f}" for peak in run.peaks)
                size = sum(file.stat().st_size for file in (folder / "store").rglob("*") if file.is_file()) / 1e6
                rate = n_rows / run.seconds
                lines.append(f"| {n_rows:,} | {step} | {run.seconds:.1f} | {rate:,.0f} | {peaks} | {size:,.0f} |")
                print(lines[-1], file=sys.stderr, flush=True)
        finally:
            shutil.rmtree(folder)
    print("\n".join(lines))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[500_000, 5_000_000])
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--rank", action="store_true", help="rank the examples too")
    parser.add_argument("--folder", type=Path, help="where the stores are made, and removed: 1.1 GB a million rows")
    return parser.parse_args()


def _steps(folder: Path, n_rows: int, workers: list[int], rank: bool) -> list[tuple[str, Run]]:
    _write_rows(folder / "rows.npy", n_rows)
    torch.save({"model": _weights(), "learning_rate": 0.1}, folder / "weights.pt")
    found = []
    for count in workers:
        shutil.rmtree(folder / "store", ignore_errors=True)
        words = ["build", "rows.npy", "--store", "store", "--model", TASK, "--checkpoints", "weights.pt"]
        words += ["--learning-rate", "0.1", "--parameters", "all", "--sketch-dim", "512", "--device", "cpu"]
        found.append((f"build, {count} workers", _run(folder, [*words, "--workers", str(count)])))
    if rank:
        found.append(("rank-outliers", _run(folder, ["rank-outliers", "store", "-o", "ranking.parquet"])))
    return found


def _weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(load_task(TASK).build().state_dict())


def _write_rows(path: Path, n_rows: int) -> None:
    """Uniform bytes, a block at a time."""
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(n_rows, 16))
    draw = np.random.default_rng(0)
    for start in range(0, n_rows, 1 << 20):
        rows[start : start + (1 << 20)] = draw.integers(0, 256, rows[start : start + (1 << 20)].shape, np.uint8)
    rows.flush()


def _run(folder: Path, words: list[str]) -> Run:
    start = time.monotonic()
    process = psutil.Popen([sys.executable, "-m", "gradstore_cli", *words], cwd=folder, stdout=subprocess.DEVNULL)
    peaks: dict[int, int] = {}
    while process.poll() is None:
        for one in _family(process):
            peaks[one] = max(peaks.get(one, 0), _resident(one))
        time.sleep(_LOOK_EVERY_S)
    if process.returncode:
        raise RuntimeError(f"gradstore {' '.join(words)} ended with {process.returncode}.")
    own = peaks.pop(process.pid)
    return Run(time.monotonic() - start, (own, *sorted(peaks.values(), reverse=True)))


def _family(process: psutil.Popen) -> list[int]:
    try:
        return [process.pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def _resident(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


if __name__ == "__main__":
    main()
