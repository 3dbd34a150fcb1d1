"""Kills a build at random moments, with no workers and with two in turn, resumes it, and looks at what is left.

    python tests/faults/crash.py --kills 200

Every build is a process group of its own that is killed whole (`kill -9`), scheduler and workers included. In the end
the store must be, byte for byte, that of a build nobody disturbed, and no kill may have cost more than the shards that
were in hand: one without workers, one a worker with them. Builds are forked from a process that has imported
everything, so that kills fall on the build and not on imports.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gradstore.store import Store
from gradstore.task import example_keys
from gradstore_pipelines.build_store import build
from gradstore_pipelines.settings import BuildSettings

_TASK = Path(__file__).parent / "crash_task.py"
_LOG = "GRADSTORE_CRASH_LOG"  # as crash_task.py has it
_WORKERS = (0, 2)
_SHARD_ROWS = 64
# Not the bytes of a store: who builds, what was asked, when.
_ASIDE = frozenset({"build"})


@dataclass
class Report:
    """What the kills did."""

    kills: int = 0
    finished: int = 0
    """builds that were done before their kill came; a new one was begun then"""
    by_phase: dict[str, int] = field(default_factory=dict)
    shards_lost: int = 0
    """begun by a killed build and not committed"""
    most_lost: dict[int, int] = field(default_factory=dict)
    """by number of workers, at one kill"""
    different: list[str] = field(default_factory=list)
    """files that are not those of an undisturbed build"""

    def __str__(self) -> str:
        phases = ", ".join(f"{count} {phase}" for phase, count in sorted(self.by_phase.items()))
        lost = ", ".join(f"{most} with {workers} workers" for workers, most in sorted(self.most_lost.items()))
        return (
            f"{self.kills} kills ({phases}), {self.finished} builds finished in between; "
            f"{self.shards_lost} shards begun anew, at most {lost}; "
            f"{len(self.different)} files differ from an undisturbed build {self.different[:5] or ''}"
        ).strip()

    @property
    def ok(self) -> bool:
        return not self.different and all(most <= max(workers, 1) for workers, most in self.most_lost.items())


class Harness:
    """One data set, an undisturbed store, and one that is killed again and again."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.choose = folder, random.Random(seed)
        self.calm, self.store, self.log = folder / "calm", folder / "store", folder / "log"
        rows = np.random.default_rng(0).integers(0, 255, (1024, 8, 8), np.uint8)
        np.save(folder / "rows.npy", rows)
        self.row_of = {int(key): row for row, key in enumerate(example_keys(map(str, range(len(rows)))))}
        self.seconds = {workers: self._undisturbed(workers) for workers in _WORKERS}

    def run(self, kills: int) -> Report:
        """Kill and resume until there were so many kills, then let the build finish."""
        report = Report()
        for workers in itertools.cycle(_WORKERS):
            if report.kills == kills:
                break
            self._one(workers, report)
        self._wait(self._start(self.store, 0))
        self._compare(report)
        return report

    def _one(self, workers: int, report: Report) -> None:
        before, begun = self._committed(), self._begun()
        process = self._start(self.store, workers)
        if self._killed(process, self.choose.uniform(0.0, self.seconds[workers])):
            report.kills += 1
            phase = "before there was a store" if before is None and self._committed() is None else "sketching"
            report.by_phase[phase] = report.by_phase.get(phase, 0) + 1
            lost = self._begun() - begun - ((self._committed() or 0) - (before or 0))
            report.shards_lost += lost
            report.most_lost[workers] = max(lost, report.most_lost.get(workers, 0))
        else:
            report.finished += 1
            self._compare(report)
            shutil.rmtree(self.store)

    def _undisturbed(self, workers: int) -> float:
        """Seconds of a whole build."""
        start = time.monotonic()
        shutil.rmtree(self.calm, ignore_errors=True)
        self._wait(self._start(self.calm, workers))
        return time.monotonic() - start

    def _start(self, store: Path, workers: int) -> int:
        sys.stdout.flush()
        process = os.fork()
        if process:
            return process
        os.setsid()
        code = 1
        try:
            os.environ[_LOG] = str(self.log)
            build(self._settings(store, workers))
            code = 0
        finally:
            os._exit(code)

    def _settings(self, store: Path, workers: int) -> BuildSettings:
        return BuildSettings(
            source=self.folder / "rows.npy",
            store=store,
            model=f"{_TASK}:Crashing",
            parameters=("all",),
            epochs=2,
            n_checkpoints=3,
            sketch_dim=256,
            shard_rows=_SHARD_ROWS,
            device="cpu",
            workers=workers,
        )

    def _killed(self, process: int, after: float) -> bool:
        """False when the build was done before."""
        ends = time.monotonic() + after
        while time.monotonic() < ends:
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                _require_success(status)
                return False
            time.sleep(0.002)
        os.killpg(process, signal.SIGKILL)
        os.waitpid(process, 0)
        return True

    def _wait(self, process: int) -> None:
        _require_success(os.waitpid(process, 0)[1])

    def _committed(self) -> int | None:
        """Shards that are done; None without a store."""
        return Store.open(self.store).n_committed if (self.store / "manifest.json").is_file() else None

    def _begun(self) -> int:
        """Shards begun so far, by all builds."""
        lines = self.log.read_text().splitlines() if self.log.is_file() else []
        first = [line.split() for line in lines if line.count(" ") == 1]  # a kill may leave half a line
        return sum(int(rows) == _SHARD_ROWS and self.row_of[int(key)] % _SHARD_ROWS == 0 for key, rows in first)

    def _compare(self, report: Report) -> None:
        theirs, ours = _files(self.calm), _files(self.store)
        report.different += sorted(name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name))


def _require_success(status: int) -> None:
    if os.waitstatus_to_exitcode(status) != 0:
        raise RuntimeError(f"A build that nobody killed ended with {os.waitstatus_to_exitcode(status)}.")


def _files(store: Path) -> dict[str, bytes]:
    found = (file for file in store.rglob("*") if file.is_file())
    return {
        name: file.read_bytes()
        for file in found
        if (name := file.relative_to(store).as_posix()).split("/")[0] not in _ASIDE
    }


def main() -> int:
    """Exit status 1 where a store came out otherwise or too much was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # Workers are forked too: they then need no second for their imports.
    os.environ["DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD"] = "fork"
    import distributed  # noqa: F401

    with tempfile.TemporaryDirectory() as folder:
        report = Harness(Path(folder), options.seed).run(options.kills)
    print(report)
    return int(not report.ok)


if __name__ == "__main__":
    sys.exit(main())
