"""How well wrong labels are found: clothes, digits and pen strokes with a tenth of their labels wrong.

    python -m tests.benchmarks.detection.labels --fashion DIR --mnist DIR --size 20000 --seeds 3 --out labels.md

Each cell is built and ranked by the real commands with default settings. Beside the combination stand the signals that
it is made of, the loss, self-influence, and cleanlab on the very predictions that the store keeps. `--downstream` also
trains three more models a cell: on everything, without what is flagged, without as many at random.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import mean

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from gradstore.evaluation.detection import found_in_first
from gradstore.ranking.rank import cut_off_of
from gradstore.store import Store
from tests.benchmarks.detection.downstream import error_after
from tests.benchmarks.detection.label_cells import KINDS, Host, LabelCell, idx_host, label_cell, pen_host
from tests.benchmarks.detection.peers import cleanlab_scores

SHOWN = ("neighbour_doubt", "label_error", "label_margin", "loss", "self_influence")
REMOVED = ("nothing removed", "flagged removed", "as many at random")
Figures = dict[str, tuple[float, ...]]


def main() -> None:
    """Run the cells and print Markdown tables."""
    options = _options()
    makers: dict[str, Callable[[], Host]] = {
        "F": lambda: idx_host("F", options.fashion),
        "M": lambda: idx_host("M", options.mnist),
        "P": pen_host,
    }
    report = []
    for name in options.hosts:
        host = makers[name]()
        for kind in options.kinds:
            runs = [
                _run(host, kind, seed, options)
                for seed in range(options.first_seed, options.first_seed + options.seeds)
            ]
            report.append(_table(f"{name}, {kind}", runs))
            print(report[-1], flush=True)
    if options.out:
        options.out.write_text("\n".join(report), encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fashion", type=Path, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--mnist", type=Path, help="folder of MNIST's IDX files")
    parser.add_argument("--hosts", nargs="+", choices=["F", "M", "P"], default=["F", "M", "P"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--size", type=int, default=20_000, help="examples in a cell, or all there are")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--downstream", action="store_true", help="train three more models a cell")
    parser.add_argument("--out", type=Path, help="write the tables here too")
    return parser.parse_args()


def _run(host: Host, kind: str, seed: int, options: argparse.Namespace) -> Figures:
    """Figures by method: found in the first 10 % and 20 %, average precision; then the cut-off and what it is worth."""
    cell = label_cell(host, kind, options.size, seed)
    with tempfile.TemporaryDirectory() as folder:
        store, table = _ranked(cell, seed, Path(folder))
        rows = np.array(table.column("id").to_pylist()).astype(int)
        scores = {name: _in_store_order(table, name, rows) for name in ("score", *SHOWN)}
        scores["combined"] = scores.pop("score")
        figures = {name: _found(values, cell.wrong) for name, values in _ordered(scores).items()}
        figures |= {name: _found(values, cell.wrong) for name, values in cleanlab_scores(store, cell.labels).items()}
        figures |= _about(table, cell, rows)
        if options.downstream:
            figures |= _downstream(cell, table, rows, Path(folder), seed)
    print(host.name, kind, seed, {name: tuple(round(v, 4) for v in f) for name, f in figures.items()}, file=sys.stderr)
    return figures


def _ranked(cell: LabelCell, seed: int, folder: Path) -> tuple[Store, pa.Table]:
    data, labels, store, ranking = (folder / name for name in ("data.npy", "labels.npy", "store", "ranking.parquet"))
    np.save(data, cell.examples)
    np.save(labels, cell.labels)
    build = ("build", str(data), "--labels", str(labels), "--model", "classifier")
    _gradstore(*build, "--store", str(store), "--seed", str(seed))
    _gradstore("rank-outliers", str(store), "-o", str(ranking))
    return Store.open(store), pq.read_table(ranking)


def _gradstore(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "gradstore_cli", *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _in_store_order(table: pa.Table, column: str, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    values = np.empty(len(rows))
    values[rows] = table.column(column).to_numpy()
    return values


def _ordered(scores: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    return {"combined": scores["combined"], **{name: scores[name] for name in SHOWN}}


def _found(scores: NDArray[np.float64], wrong: NDArray[np.bool_]) -> tuple[float, ...]:
    first = [found_in_first(scores, wrong, len(wrong) // part) / wrong.sum() for part in (10, 5)]
    return (*first, float(average_precision_score(wrong, scores)))


def _about(table: pa.Table, cell: LabelCell, rows: NDArray[np.int64]) -> Figures:
    """The estimated number of wrong labels over the true one, and what `label error` and its suggestions are worth."""
    cut = cut_off_of(table)
    named = np.array(table.column("kind").to_pylist(), dtype=object) == "label error"
    suggested = np.array([-1 if s is None else int(s) for s in table.column("suggested_label").to_pylist()])
    truly = named & cell.wrong[rows]
    right = suggested[truly] == cell.true_labels[rows][truly]
    n_wrong = cell.wrong.sum()
    assert cut is not None
    return {
        "estimated number / true, and interval": (cut.n / n_wrong, cut.low / n_wrong, cut.high / n_wrong),
        "'label error': precision, recall, suggestion right": (
            truly.sum() / named.sum(),
            truly.sum() / n_wrong,
            right.mean(),
        ),
    }


def _downstream(cell: LabelCell, table: pa.Table, rows: NDArray[np.int64], folder: Path, seed: int) -> Figures:
    cut = cut_off_of(table)
    n = 0 if cut is None else cut.n
    everything = np.ones(len(rows), dtype=bool)
    flagged, at_random = everything.copy(), everything.copy()
    flagged[rows[:n]] = False
    at_random[np.random.default_rng(seed).permutation(len(rows))[:n]] = False
    chosen = zip(REMOVED, (everything, flagged, at_random), strict=True)
    return {f"test error, {name}": (error_after(cell, kept, folder / name, seed),) for name, kept in chosen}


def _table(title: str, runs: list[Figures]) -> str:
    lines = [
        f"## {title} ({len(runs)} seeds)",
        "",
        "| | first 10 % | first 20 % | average precision |",
        "|---|---|---|---|",
    ]
    for name in runs[0]:
        cells = [f"{mean(values):.3f}" for values in zip(*(run[name] for run in runs), strict=True)]
        lines.append(f"| {name} | " + " | ".join([*cells, "", ""][:3]) + " |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
