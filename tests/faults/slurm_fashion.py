"""Fashion-MNIST, 60,000 examples, sketched in the jobs of a real SLURM of which one is cancelled on the way.

The store is then compared, byte for byte, with one that this machine made alone. Weights are trained once and given to
both. Needs Debian's SLURM and `dataset-fashion-mnist`, and root:

    python -m tests.faults.slurm_fashion
    python -m tests.faults.slurm_fashion --images other-images-idx3-ubyte.gz --jobs 4
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from gradstore.store import Store, verify
from gradstore_cli.progress import TerminalReporter
from gradstore_pipelines.build_store import build, train_checkpoints
from gradstore_pipelines.cluster_table import ClusterTable
from gradstore_pipelines.settings import BuildSettings
from tests.cluster.slurm import Slurm, slurm, why_not

_IMAGES = Path("/usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz")


def main() -> None:
    """Build twice, compare, and print a line on each."""
    asked = _arguments()
    if (reason := why_not()) is not None:
        raise SystemExit(f"No SLURM can be started here: {reason}.")
    folder = Path(tempfile.mkdtemp(prefix="gradstore-fashion-", dir=asked.folder))
    try:
        _run(asked, folder)
    finally:
        shutil.rmtree(folder)


def _run(asked: argparse.Namespace, folder: Path) -> None:
    train_checkpoints(_settings(asked, folder / "trained", epochs=asked.epochs), TerminalReporter())
    weights = {"checkpoints": (str(folder / "trained" / "checkpoints" / "*.safetensors"),)}
    local = _timed("sketched in process", _settings(asked, folder / "local", **weights))
    with slurm() as cluster:
        os.environ.update(SLURM_CONF=cluster.environment["SLURM_CONF"], PYTHONPATH=os.pathsep.join(sys.path))
        table = ClusterTable(
            jobs=asked.jobs,
            memory="2GB",
            host="127.0.0.1",
            worker_arguments=("--host", "127.0.0.1"),
            logs=folder / "logs",
        )
        away = folder / "slurm"
        canceller = threading.Thread(target=_cancel_one, args=(cluster, away), daemon=True)
        canceller.start()
        _timed(f"sketched in {asked.jobs} jobs, one cancelled", _settings(asked, away, cluster=table, **weights))
        canceller.join(1)
    _compare(local, away)


def _settings(asked: argparse.Namespace, store: Path, **changes: Any) -> BuildSettings:
    values = {"sketch_dim": asked.sketch_dim, "n_checkpoints": 3, "shard_rows": 2048, "device": "cpu"} | changes
    return BuildSettings(source=asked.images, store=store, **values)


def _timed(what: str, settings: BuildSettings) -> Path:
    start = time.perf_counter()
    build(settings, TerminalReporter())
    print(f"{what}: {time.perf_counter() - start:.0f} s", flush=True)
    return Path(str(settings.store))


def _cancel_one(cluster: Slurm, store: Path) -> None:
    """When a tenth is done."""
    commits = store / "commits"
    while not commits.is_dir() or len(list(commits.iterdir())) < 9:
        time.sleep(0.1)
    job, node = next(iter(cluster.jobs().items()))
    cluster.run("scancel", job)
    print(f"cancelled job {job} on {node} with {len(list(commits.iterdir()))} shards committed", flush=True)
    others = cluster.wait_for_jobs(1, seconds=120, without=frozenset({*cluster.jobs(), job}))
    print(f"replaced by {', '.join(f'job {number} on {node}' for number, node in others.items())}", flush=True)


def _compare(local: Path, away: Path) -> None:
    ours, theirs = ({file.relative_to(at): file for file in _files(at)} for at in (local, away))
    differing = [str(name) for name in sorted({*ours, *theirs}) if not _same(ours.get(name), theirs.get(name))]
    store = Store.open(away)
    print(f"{store.n_committed} shards, verify {'ok' if verify(store).ok else 'NOT ok'}")
    print(f"{len(ours)} files, {len(differing)} of them differ{': ' + ', '.join(differing[:5]) if differing else ''}")
    raise SystemExit(1 if differing else 0)


def _files(store: Path) -> list[Path]:
    return [file for file in store.rglob("*") if file.is_file()]


def _same(a: Path | None, b: Path | None) -> bool:
    return a is not None and b is not None and a.read_bytes() == b.read_bytes()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--images", type=Path, default=_IMAGES)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--sketch-dim", type=int, default=512)
    parser.add_argument("--folder", type=Path, default=None, help="where stores and logs go for the time being")
    return parser.parse_args()


if __name__ == "__main__":
    main()
