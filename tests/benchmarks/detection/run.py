"""Run cells: build and rank each with the real commands and default settings, and keep every score.

    python -m tests.benchmarks.detection.run --fashion DIR --mnist DIR --emoji DIR --results DIR --seeds 3

A run that is in the results folder already is passed over, so an interrupted benchmark goes on, and several processes
can share one (`--groups`, `--cells`). After a change to how signals are combined, and to nothing else, `--again` judges
the kept signals anew; after one to signals, `--stores` with the builds of the last time saves building them.
`tests.benchmarks.detection.page` makes the page of what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from gradstore.evaluation.detection import detection_curve, roc_auc
from gradstore.ranking.rank import cut_off_of, estimated_cut_off, scores_by
from gradstore.ranking.signals import ALL_SIGNALS
from gradstore.store import Store
from tests.benchmarks.detection.cells import GROUPS, Cell, Contaminated, contaminated
from tests.benchmarks.detection.downstream import errors_after_cleaning
from tests.benchmarks.detection.hosts import Folders, Host, open_host
from tests.benchmarks.detection.peers import Scores, label_scores, outlier_scores

SHARES = (0.01, 0.05, 0.1, 0.2)
_WITHOUT_PEERS = 20_001
_OTHER_SEED = 1_000


def main() -> None:
    """Run what is not there yet."""
    options = _options()
    folders = Folders(options.fashion, options.mnist, options.emoji, options.results / "cache")
    cells = [cell for group in options.groups for cell in GROUPS[group]]
    hosts: dict[str, Host] = {}
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        for cell in cells:
            path = result_path(options.results, cell, seed)
            if options.again and path.is_file():
                _judge_again(path)
            if options.again or path.is_file() or (options.cells and cell.name not in options.cells):
                continue
            if cell.host not in hosts:
                hosts[cell.host] = open_host(cell.host, folders)
            found, scores = _run(cell, hosts[cell.host], seed, options)
            path.parent.mkdir(parents=True, exist_ok=True)
            kept: dict[str, Any] = {name: values.astype(np.float32) for name, values in scores.items()}
            np.savez_compressed(path.with_suffix(".npz"), **kept)
            path.write_text(json.dumps(found, indent=1), encoding="utf-8")
            _say(cell, seed, found)


def result_path(results: Path, cell: Cell, seed: int) -> Path:
    """Figures; beside them, as .npz, every score."""
    return results / f"{cell.name.replace(' ', '-')}-{seed}.json"


def results_of(results: Path, cell: Cell) -> Iterator[dict[str, Any]]:
    """What was found, by seed."""
    for path in sorted(results.glob(f"{cell.name.replace(' ', '-')}-[0-9]*.json")):
        yield json.loads(path.read_text(encoding="utf-8"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True, help="folder of results; what is there is not run again")
    parser.add_argument("--fashion", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's IDX files")
    parser.add_argument("--emoji", type=Path, help="folder with emoji.json and img/google/64")
    parser.add_argument("--stores", type=Path, help="keep builds here: run again, only the signals are computed")
    parser.add_argument("--groups", nargs="+", choices=list(GROUPS), default=["unlabelled", "labels", "shares"])
    parser.add_argument("--cells", nargs="+", default=[], help="only these, by name")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--downstream", action="store_true", help="label cells: train three more models")
    parser.add_argument("--again", action="store_true", help="build nothing, combine and judge kept signals anew")
    parser.add_argument("--twice", action="store_true", help="build again with other seeds of model and projection")
    return parser.parse_args()


def _run(cell: Cell, host: Host, seed: int, options: argparse.Namespace) -> tuple[dict[str, Any], Scores]:
    data, start = contaminated(cell, host, seed), time.perf_counter()
    found: dict[str, Any] = {"cell": cell.name, "seed": seed, "n": len(data.bad), "n_bad": int(data.bad.sum())}
    with _folder(options.stores, cell, seed) as folder:
        store, table = _ranked(cell, data, seed, folder)
        found["seconds"] = round(time.perf_counter() - start, 1)
        rows = _rows(table)
        shown = [name for name in table.column_names if name in ALL_SIGNALS]
        scores = {name: _in_store_order(table, name, rows) for name in ("score", *shown)}
        ours = {"combined": scores.pop("score"), **scores}
        peers = _peers(store, data)
        found["cut_off"] = _cut_off(table)
        if data.true_labels is not None:
            found["label errors"] = _named(table, data, rows)
        if options.downstream and data.labels is not None:
            found["removed"] = found["cut_off"][0]
            found["test errors"] = errors_after_cleaning(data, host.test, rows[: found["removed"]], folder, seed)
        if options.twice:
            _, again = _ranked(cell, data, seed + _OTHER_SEED, folder / "again")
            scores_again = _in_store_order(again, "score", _rows(again))
            found["rank correlation of two builds"] = float(spearmanr(ours["combined"], scores_again).statistic)
    scored = {**ours, **peers}
    if data.bad.any():
        found["figures"] = {name: _judged(values, data.bad) for name, values in scored.items()}
    return found, {**scored, "bad": data.bad.astype(np.float64)}


@contextmanager
def _folder(stores: Path | None, cell: Cell, seed: int) -> Iterator[Path]:
    """Where a cell is built: one that stays, or one that goes."""
    if stores is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
    else:
        yield stores / result_path(stores, cell, seed).stem


def _judge_again(path: Path) -> None:
    found = json.loads(path.read_text(encoding="utf-8"))
    with np.load(path.with_suffix(".npz")) as file:
        kept: dict[str, Any] = dict(file)
    signals = {name: values.astype(np.float64) for name, values in kept.items() if name in ALL_SIGNALS}
    combined, bad = scores_by(signals), kept["bad"] > 0
    cut = estimated_cut_off(signals, combined)
    found["cut_off"] = [cut.n, cut.low, cut.high, cut.grouped]
    if bad.any():
        found["figures"]["combined"] = _judged(combined, bad)
    np.savez_compressed(path.with_suffix(".npz"), **{**kept, "combined": combined.astype(np.float32)})
    path.write_text(json.dumps(found, indent=1), encoding="utf-8")


def _rows(table: pa.Table) -> NDArray[np.int64]:
    """Which rows of the data a ranking names, in its order."""
    return np.array(table.column("id").to_pylist()).astype(np.int64)


def _ranked(cell: Cell, data: Contaminated, seed: int, folder: Path) -> tuple[Store, pa.Table]:
    folder.mkdir(parents=True, exist_ok=True)
    source, store, ranking = (folder / name for name in ("data.npy", "store", "ranking.parquet"))
    np.save(source, data.examples)
    labels: tuple[str, ...] = ()
    if data.labels is not None:
        np.save(folder / "labels.npy", data.labels)
        labels = "--labels", str(folder / "labels.npy")
    _gradstore("build", str(source), *labels, "--model", cell.model, "--store", str(store), "--seed", str(seed))
    _gradstore("rank-outliers", str(store), "-o", str(ranking))
    return Store.open(store), pq.read_table(ranking)


def _gradstore(*arguments: str) -> None:
    """A command, in an environment of the caller's."""
    done = subprocess.run(
        [sys.executable, "-m", "gradstore_cli", *arguments], capture_output=True, text=True, env=os.environ
    )
    if done.returncode:
        raise SystemExit(f"gradstore {' '.join(arguments)}\n{done.stderr}")


def _in_store_order(table: pa.Table, column: str, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    values = np.empty(len(rows))
    values[rows] = table.column(column).to_numpy()
    return values


def _peers(store: Store, data: Contaminated) -> Scores:
    chance = {"random": np.random.default_rng(0).random(len(data.bad))}
    if data.labels is not None:
        return {**label_scores(store, data.labels), **chance}
    return {**(outlier_scores(store, data.examples) if len(data.bad) < _WITHOUT_PEERS else {}), **chance}


def _judged(scores: NDArray[np.float64], bad: NDArray[np.bool_]) -> dict[str, Any]:
    curve = detection_curve(scores, bad)
    return {
        "roc_auc": roc_auc(scores, bad),
        "average_precision": float(average_precision_score(bad, scores)),
        "mean_detection": float(curve.mean()),
        "found": {str(share): float(curve[max(int(share * len(curve)), 1) - 1]) for share in SHARES},
    }


def _cut_off(table: pa.Table) -> list[int]:
    cut = cut_off_of(table)
    assert cut is not None
    return [cut.n, cut.low, cut.high, cut.grouped]


def _named(table: pa.Table, data: Contaminated, rows: NDArray[np.int64]) -> dict[str, float]:
    """What `label error` and its suggestions are worth."""
    assert data.true_labels is not None
    named = np.array(table.column("kind").to_pylist(), dtype=object) == "label error"
    suggested = np.array([-1 if s is None else int(s) for s in table.column("suggested_label").to_pylist()])
    truly = named & data.bad[rows]
    return {
        "precision": float(truly.sum() / max(named.sum(), 1)),
        "recall": float(truly.sum() / data.bad.sum()),
        "suggestion right": float((suggested[truly] == data.true_labels[rows][truly]).mean()) if truly.any() else 0.0,
    }


def _say(cell: Cell, seed: int, found: dict[str, Any]) -> None:
    figures = found.get("figures", {})
    aucs = {name: round(f["roc_auc"], 3) for name, f in figures.items()}
    best = sorted(aucs, key=lambda name: -aucs[name])[:4]
    brief = {name: aucs[name] for name in dict.fromkeys(["combined", "loss", *best]) if name in aucs}
    print(f"{found['seconds']:6.0f} s  {cell.name}, seed {seed}: {brief}, bad {found['cut_off']}", flush=True)


if __name__ == "__main__":
    main()
