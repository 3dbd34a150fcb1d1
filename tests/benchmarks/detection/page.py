"""The page of what the benchmark found: docs/detection.md, its plots, and where others are better.

    python -m tests.benchmarks.detection.page --results DIR --out docs/detection.md

Every number comes from the results folder that `tests.benchmarks.detection.run` fills; the plots need matplotlib.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from gradstore.evaluation.detection import detection_curve
from gradstore.ranking.signals import ALL_SIGNALS
from tests.benchmarks.detection.cells import EIGHT, FLIPPED, FULL, SHARES, UNLABELLED, Cell
from tests.benchmarks.detection.run import result_path, results_of

COMBINED = "combined"
PLAIN = ("loss", "self_influence", "latent_distance", "random")
CLEANLAB = "cleanlab outliers, latents"
_BEHIND = 0.02
_SHOWN_IN_SHORT = 6
_BEHIND_IN_PRECISION = 0.01
Run = dict[str, Any]
Found = dict[Cell, list[Run]]


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("docs/detection.md"))
    options = parser.parse_args()
    unlabelled, labels, full, shares = (_found(options.results, group) for group in (UNLABELLED, FLIPPED, FULL, SHARES))
    plot = options.out.with_suffix(".png")
    _draw(options.results, unlabelled, labels, plot)
    parts = [
        _HEAD.format(plot=plot.name, n_cells=len(unlabelled) + len(labels)),
        _in_short(unlabelled, labels),
        _unlabelled("The eight cells of two per cent", {c: runs for c, runs in unlabelled.items() if c in EIGHT}),
        _unlabelled("All cells without labels", unlabelled),
        _unlabelled("60,000 examples, 1,200 of them bad", full),
        _labels(labels),
        _downstream(labels),
        _shares({**shares, **unlabelled, **labels}),
        _twice({**unlabelled, **labels}),
        _losses(unlabelled, labels),
    ]
    options.out.write_text("\n".join(part for part in parts if part), encoding="utf-8")


_HEAD = """# How well bad examples are found

Made by two commands, which build and rank every cell with default settings, as a user would, and tune nothing to it:

```bash
python -m tests.benchmarks.detection.run --fashion DIR --mnist DIR --emoji DIR --results DIR --downstream
python -m tests.benchmarks.detection.page --results DIR
```

{n_cells} cells: clothes (F, Fashion-MNIST), digits (M, MNIST), pen strokes (series), letters (a table), Reuters R8
behind a sentence encoder (MiniLM) and emoji behind an image encoder (EfficientNet-Lite0), both frozen. The model (VAE
unless said, autoencoder, or classifier) learns from the contaminated data. Peers see the same data or the same model's
latents and predictions. Figures are means over seeds of data, planting and model.

![Detection curves and ROC-AUC by cell]({plot})
"""


def _found(results: Path, group: Iterable[Cell]) -> Found:
    return {cell: runs for cell in group if (runs := list(results_of(results, cell)))}


# In short


def _in_short(unlabelled: Found, labels: Found) -> str:
    """Means and minima over cells of the score, and of the others by their mean."""
    lines = ["## In short", ""]
    for title, found, (figure, words) in (
        ("without labels", unlabelled, ("roc_auc", "ROC-AUC")),
        ("with wrong labels", labels, _LABEL_MEASURE),
    ):
        if not found:
            continue
        names = [name for name, _ in _peers_by([run for runs in found.values() for run in runs], figure)]
        names = [name for name in names if _has(found, name)][:_SHOWN_IN_SHORT]
        rows = []
        for name in (COMBINED, *names):
            by_cell = [_mean(runs, name, figure) for runs in found.values()]
            rows.append([name, _number(mean(by_cell)), _number(min(by_cell))])
        lines += [*_table([f"{len(found)} cells {title}", f"mean {words}", "lowest cell"], rows), ""]
    return "\n".join(lines)


# Cells without labels


def _unlabelled(title: str, found: Found) -> str:
    if not found:
        return ""
    pyod = _best_of(found, "PyOD", 2)
    shown = [COMBINED, *PLAIN[:3], *_best_of(found, "isolation forest", 1), *_best_of(found, "local outlier", 1)]
    shown += [name for name in (*pyod, CLEANLAB, "random") if _has(found, name)]
    lines = [f"## {title}", "", f"ROC-AUC, and of the first method average precision{_about_peers(found)}.", ""]
    heads = ["cell", "seeds", *shown, "average precision", "best single signal", "regret"]
    rows = [_unlabelled_row(cell, runs, shown) for cell, runs in found.items()]
    lines += _table(heads, rows)
    lines += _extremes(found, shown)
    return "\n".join([*lines, ""])


def _about_peers(found: Found) -> str:
    tried = sorted(
        {name for runs in found.values() for run in runs for name in run["figures"] if name.startswith("PyOD")}
    )
    if not tried:
        return ""
    return f"; PyOD's are the two of {len(tried)} tried with the best mean, chosen with the answer in hand"


def _unlabelled_row(cell: Cell, runs: list[Run], shown: Sequence[str]) -> list[str]:
    best, value = _best_single(runs)
    combined = _mean(runs, COMBINED, "roc_auc")
    return [
        cell.name,
        str(len(runs)),
        *(_number(_mean(runs, name, "roc_auc")) for name in shown),
        _number(_mean(runs, COMBINED, "average_precision")),
        f"{best} {_number(value)}",
        _number(max(value - combined, 0.0)),
    ]


def _extremes(found: Found, shown: Sequence[str]) -> list[str]:
    rows = []
    for name, of in (("mean", mean), ("minimum", min)):
        values = [of([_mean(runs, method, "roc_auc") for runs in found.values()]) for method in shown]
        rows.append(f"| **{name}** | | " + " | ".join(f"**{_number(v)}**" for v in values) + " | | | |")
    regrets = [max(_best_single(runs)[1] - _mean(runs, COMBINED, "roc_auc"), 0.0) for runs in found.values()]
    by_run = [max(_best_single([run])[1] - _mean([run], COMBINED, "roc_auc"), 0.0) for r in found.values() for run in r]
    words = f"Worst regret to the best single signal of a cell: {_number(max(regrets))} of means over seeds, "
    return [*rows, "", words + f"{_number(max(by_run))} of single runs (the best signal of that very run)."]


def _best_single(runs: list[Run]) -> tuple[str, float]:
    """The one of our signals that is best on these runs."""
    names = [name for name in runs[0]["figures"] if name in ALL_SIGNALS]
    return max(((name, _mean(runs, name, "roc_auc")) for name in names), key=lambda pair: pair[1])


# Cells with wrong labels


def _labels(found: Found) -> str:
    if not found:
        return ""
    cleanlab = [name for name in next(iter(found.values()))[0]["figures"] if name.startswith("cleanlab")]
    shown = [COMBINED, "label_error", "neighbour_doubt", "loss", "self_influence", *cleanlab, "random"]
    lines = ["## A tenth of the labels wrong", ""]
    for title, value in _LABEL_FIGURES.items():
        lines += [f"{title}:", ""]
        rows = [
            [cell.name, str(len(runs)), *(_number(mean(value(run["figures"][name]) for run in runs)) for name in shown)]
            for cell, runs in found.items()
        ]
        lines += [*_table(["cell", "seeds", *shown], rows), ""]
    lines += ["What is called a label error, and the label suggested in its place:", ""]
    rows = [
        [cell.name, *(_number(mean(run["label errors"][what] for run in runs)) for what in _NAMED)]
        for cell, runs in found.items()
    ]
    return "\n".join([*lines, *_table(["cell", *_NAMED], rows), ""])


_LABEL_FIGURES: dict[str, Callable[[dict[str, Any]], float]] = {
    "Found in the first 10 % inspected": lambda figures: float(figures["found"]["0.1"]),
    "Found in the first 20 %": lambda figures: float(figures["found"]["0.2"]),
    "Average precision": lambda figures: float(figures["average_precision"]),
}
_LABEL_MEASURE = ("average_precision", "average precision")
_NAMED = ("precision", "recall", "suggestion right")


def _downstream(found: Found) -> str:
    trained = {cell: [run for run in runs if "test errors" in run] for cell, runs in found.items()}
    trained = {cell: runs for cell, runs in trained.items() if runs}
    if not trained:
        return ""
    heads = list(next(iter(trained.values()))[0]["test errors"])
    rows = []
    for cell, runs in trained.items():
        errors = [_percent(mean(run["test errors"][head] for run in runs)) for head in heads]
        rows.append([cell.name, str(len(runs)), f"{mean(run['removed'] for run in runs):,.0f}", *errors])
    lines = [
        "## What cleaning is worth",
        "",
        "Error on clean test data of a classifier trained anew, without as many of the most suspicious as look wrong,",
        "and without as many at random.",
        "",
    ]
    return "\n".join([*lines, *_table(["cell", "seeds", "removed", *heads], rows), ""])


# Cut-off and stability


def _shares(found: Found) -> str:
    rows = []
    for cell, runs in found.items():
        n, low, high, apart = (mean(run["cut_off"][i] for run in runs) for i in range(4))
        held = sum(run["cut_off"][1] <= run["n_bad"] <= run["cut_off"][2] for run in runs)
        true = mean(run["n_bad"] for run in runs)
        numbers = [f"{true / mean(run['n'] for run in runs):.1%}", f"{true:,.0f}", f"{n:,.0f}"]
        rows.append([cell.name, *numbers, f"{low:,.0f} to {high:,.0f}", f"{held} of {len(runs)}", f"{apart:,.0f}"])
    lines = [
        "## How many are bad",
        "",
        "The estimate that stands above a ranking, its interval, in how many runs that held the truth; beside it how",
        "many have near copies or lie in a small group apart.",
        "",
    ]
    heads = ["cell", "bad", "number", "estimate", "interval", "held", "copies, groups"]
    return "\n".join([*lines, *_table(heads, rows), ""])


def _twice(found: Found) -> str:
    what = "rank correlation of two builds"
    values = {cell.name: [run[what] for run in runs if what in run] for cell, runs in found.items()}
    values = {name: numbers for name, numbers in values.items() if numbers}
    if not values:
        return ""
    lines = [
        "## Built twice",
        "",
        "Rank correlation of the scores of two builds with other seeds of model and projection.",
        "",
    ]
    return "\n".join([*lines, *_table(["cell", what], [[n, _number(mean(v))] for n, v in values.items()]), ""])


# Where others are better


def _losses(unlabelled: Found, labels: Found) -> str:
    """The best of the others in each cell where it is ahead."""
    measures = ((unlabelled, "roc_auc", "ROC-AUC", _BEHIND), (labels, *_LABEL_MEASURE, _BEHIND_IN_PRECISION))
    behind = [
        f"- {cell.name}: {name} {_number(value)}, combined {_number(_mean(runs, COMBINED, figure))} ({words})"
        for found, figure, words, by in measures
        for cell, runs in found.items()
        for name, value in _peers_by(runs, figure)[:1]
        if value > _mean(runs, COMBINED, figure) + by
    ]
    none = ["Nowhere by more than .02 ROC-AUC, or with labels .01 average precision."]
    lines = [
        "## Where others find more",
        "",
        "The best of them, plain loss, self-influence and latent distance too.",
        "",
    ]
    return "\n".join([*lines, *(behind or none), ""])


def _peers_by(runs: list[Run], figure: str) -> list[tuple[str, float]]:
    """Peers, plain loss and latent distance, best first."""
    known = set.intersection(*(set(run["figures"]) for run in runs))
    names = sorted(name for name in known - {COMBINED} if name not in ALL_SIGNALS or name in PLAIN)
    return sorted(((name, _mean(runs, name, figure)) for name in names), key=lambda pair: -pair[1])


def _best_of(found: Found, prefix: str, n: int) -> list[str]:
    names = {name for runs in found.values() for name in runs[0]["figures"] if name.startswith(prefix)}
    everywhere = [name for name in sorted(names) if _has(found, name)]
    by_mean = {name: mean(_mean(runs, name, "roc_auc") for runs in found.values()) for name in everywhere}
    return sorted(everywhere, key=lambda name: -by_mean[name])[:n]


def _has(found: Found, name: str) -> bool:
    return all(name in run["figures"] for runs in found.values() for run in runs)


def _mean(runs: list[Run], name: str, figure: str) -> float:
    return mean(float(run["figures"][name][figure]) for run in runs)


def _number(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


# Plots


def _draw(results: Path, unlabelled: Found, labels: Found, path: Path) -> None:
    """Left and middle: mean detection curves; right: every cell's ROC-AUC."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(15, 6))
    curves = {"without labels": unlabelled, "a tenth of the labels wrong": labels}
    for axis, (title, found) in zip(axes, curves.items(), strict=False):
        if not found:
            continue
        peers = _best_of(found, "PyOD", 1) or _best_of(found, "cleanlab", 1)
        for name in (COMBINED, "loss", "self_influence", *peers, "random"):
            axis.plot(
                _GRID * 100, _mean_curve(results, found, name), label=name, linewidth=2 if name == COMBINED else 1
            )
        axis.set(title=title, xlabel="inspected, %", ylabel="bad examples found, %", xscale="log", xlim=(0.5, 100))
        axis.legend(loc="upper left", fontsize=8)
    names = [cell.name for cell in unlabelled]
    for method, marker in {COMBINED: "o", "loss": "x", "self_influence": "+", "latent_distance": "."}.items():
        values = [_mean(runs, method, "roc_auc") for runs in unlabelled.values()]
        axes[2].plot(values, range(len(names)), marker, label=method)
    axes[2].set(title="ROC-AUC by cell", yticks=range(len(names)), yticklabels=names, xlim=(0, 1.02))
    axes[2].invert_yaxis()
    axes[2].grid(alpha=0.3)
    axes[2].legend(loc="lower left", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=80)


_GRID = np.geomspace(0.005, 1.0, 100)


def _mean_curve(results: Path, found: Found, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    curves = []
    for cell, runs in found.items():
        for run in runs:
            with np.load(result_path(results, cell, run["seed"]).with_suffix(".npz")) as kept:
                curve = detection_curve(kept[name], kept["bad"] > 0)
            curves.append(100 * curve[np.maximum((_GRID * len(curve)).astype(int), 1) - 1])
    return np.asarray(np.mean(curves, axis=0))


if __name__ == "__main__":
    main()
