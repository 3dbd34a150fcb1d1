"""What two Dask workers spend on anything but the units themselves.

    python tests/benchmarks/dask_overhead.py --examples 20000 --workers 2

The default VAE on synthetic pictures, real stage, real executor. Every unit writes down how long it took where it ran;
what is left of the workers' time between the first unit's start and the last one's end is overhead. Starting and
stopping the cluster is told apart: it does not grow with the data.
"""

from __future__ import annotations

import argparse
import importlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gradstore.store import Store
from gradstore_pipelines.build_store import build
from gradstore_pipelines.executors import executor_for
from gradstore_pipelines.progress import Silent
from gradstore_pipelines.settings import BuildSettings
from gradstore_pipelines.stage import Unit, UnitRecord
from gradstore_pipelines.stages.sketch import SketchStage


@dataclass(frozen=True)
class Timed:
    """The sketch stage, and a line for every unit: when it began and ended, by the machine's clock."""

    stage: SketchStage
    log: Path

    @property
    def name(self) -> str:
        return self.stage.name

    @property
    def row_bytes(self) -> int:
        return self.stage.row_bytes

    def units(self) -> Iterator[Unit]:
        return self.stage.units()

    def blame(self, unit: Unit) -> Sequence[str]:
        return self.stage.blame(unit)

    def run_unit(self, unit: Unit, advance: Callable[[int], None] | None = None) -> UnitRecord:
        began = time.monotonic()
        record = self.stage.run_unit(unit, advance)
        with self.log.open("a") as log:
            log.write(f"{os.getpid()} {began} {time.monotonic()}\n")
        return record


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(_overhead(Path(name), options.examples, options.workers))


def _overhead(folder: Path, n_examples: int, n_workers: int) -> str:
    rows = np.random.default_rng(0).integers(0, 256, (n_examples, 28, 28), np.uint8)
    np.save(folder / "rows.npy", rows)
    settings = BuildSettings(
        source=folder / "rows.npy", store=folder / "store", epochs=1, device="cpu", workers=n_workers
    )
    build(settings)  # the same store again, shard by shard, is what is timed
    store = Store.open(folder / "store")
    for checkpoint in range(store.n_checkpoints):
        for shard in range(store.n_shards):
            store.discard(checkpoint, shard)
    stage = Timed(SketchStage.planned(store, settings.batch_size, "cpu", None), folder / "log")
    began = time.monotonic()
    executor_for(settings.where(), device="cpu", folder=folder).run(
        stage, Silent(), total=n_examples * store.n_checkpoints, done=0
    )
    return _said(stage.log, time.monotonic() - began, n_workers)


def _said(log: Path, whole: float, n_workers: int) -> str:
    lines = [line.split() for line in log.read_text().splitlines()]
    spans = np.array([[float(start), float(stop)] for _, start, stop in lines])
    between = spans[:, 1].max() - spans[:, 0].min()
    busy = float((spans[:, 1] - spans[:, 0]).sum())
    other = 1 - busy / (n_workers * between)
    return (
        f"{len(spans)} units of {busy / len(spans):.2f} s on {n_workers} workers: {other:.1%} of {between:.1f} s is "
        f"not units; starting and stopping the workers takes {whole - between:.1f} s"
    )


if __name__ == "__main__":
    # Workers find this file's classes by its name as a module.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    importlib.import_module("dask_overhead").main()
