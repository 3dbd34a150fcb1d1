"""Choose what the default score combines on half of the cells and seeds, and report it on the other half.

    python -m tests.benchmarks.detection.choose --results DIR

Reads the signals that `tests.benchmarks.detection.run` kept: nothing is built. The score of a candidate is a power mean
of surprises, and the evidence of groups. What is chosen has the largest mean ROC-AUC plus mean average precision
less the worst regret, the most that is lost in any run to the single signal that is best in it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from gradstore.evaluation.detection import roc_auc
from gradstore.ranking.combine import POWER, WEIGHTS, group_evidence, improbability, surprise
from gradstore.ranking.signals import ALL_SIGNALS
from tests.benchmarks.detection.cells import UNLABELLED
from tests.benchmarks.detection.run import result_path

GRADIENTS: tuple[Mapping[str, float], ...] = (
    {"robust_unit_leverage": 1.0},
    {"robust_unit_leverage": 1.0, "gradient_isolation": 0.5},
    {"robust_unit_leverage": 1.0, "gradient_isolation": 1.0},
    {"robust_unit_leverage": 1.0, "robust_leverage": 1.0},
    {"robust_unit_leverage": 1.0, "unit_leverage": 1.0},
)
_LATENT = ("robust_latent_distance", "latent_isolation", "robust_latent_direction")
LATENTS = tuple(dict.fromkeys(names, 1.0) for n in (1, 2, 3) for names in itertools.combinations(_LATENT, n))
OTHERS: tuple[Mapping[str, float], ...] = ({}, {"loss": 0.5})
POWERS = (1.0, 1.5, 2.0)
SURPRISES: Mapping[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "ranks": surprise,
    "values": improbability,
}


@dataclass(frozen=True, eq=False)
class Run:
    """One cell and seed: its signals, and the answer."""

    cell: str
    seed: int
    signals: Mapping[str, NDArray[np.float64]]
    bad: NDArray[np.bool_]

    @cache  # noqa: B019
    def surprise_of(self, name: str, how: str) -> NDArray[np.float64]:
        return SURPRISES[how](self.signals[name])

    @cache  # noqa: B019
    def in_groups(self) -> NDArray[np.float64]:
        return group_evidence(self.signals)

    @cache  # noqa: B019
    def best(self) -> float:
        """Of any single signal, chosen with the answer."""
        return max(roc_auc(values, self.bad) for values in self.signals.values())


@dataclass(frozen=True)
class Candidate:
    """A weighted power mean of what some signals say."""

    weights: Mapping[str, float]
    power: float
    how: str

    def score(self, run: Run) -> NDArray[np.float64]:
        powers = [run.surprise_of(name, self.how) ** self.power for name in self.weights]
        alone = np.average(powers, axis=0, weights=list(self.weights.values())) ** (1 / self.power)
        return np.asarray(alone + run.in_groups())

    def __str__(self) -> str:
        words = ", ".join(f"{weight:g} {name}" for name, weight in self.weights.items())
        return f"{self.how}, power {self.power:g}: {words}"


IN_USE = tuple(Candidate(WEIGHTS, POWER, how) for how in SURPRISES)


@dataclass(frozen=True)
class Quality:
    """Over some runs."""

    auc: float
    lowest: float
    precision: float
    regret: float

    @property
    def total(self) -> float:
        return self.auc + self.precision - self.regret

    def __str__(self) -> str:
        return " | ".join(f"{v:.3f}" for v in (self.auc, self.lowest, self.precision, self.regret))


def main() -> None:
    """Print what is chosen, what is in use, and what it is worth where it was not chosen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--show", type=int, default=5, help="how many of the best to print")
    runs = list(_runs(parser.parse_args().results))
    names = sorted({run.cell for run in runs})
    halves = [[run for run in runs if (names.index(run.cell) + run.seed) % 2 == half] for half in (0, 1)]
    print(f"{len(runs)} runs of {len(names)} cells.\n")
    for choosing, other in (halves, halves[::-1]):
        _report(choosing, other, parser.parse_args().show)


def _report(choosing: list[Run], other: list[Run], n: int) -> None:
    heads = "mean | lowest | precision | regret"
    print(f"| chosen on {len(choosing)} runs | {heads} | on the other {len(other)}: {heads} |\n" + "|---" * 9 + "|")
    found = sorted(((_quality(c, choosing), c) for c in _candidates()), key=lambda pair: -pair[0].total)
    for quality, candidate in found[:n] + [(_quality(c, choosing), c) for c in IN_USE]:
        print(f"| {candidate} | {quality} | {_quality(candidate, other)} |")
    print()


def _candidates() -> Iterator[Candidate]:
    for power, *parts in itertools.product(POWERS, GRADIENTS, LATENTS, OTHERS):
        yield Candidate({name: weight for part in parts for name, weight in part.items()}, power, "values")


def _quality(candidate: Candidate, runs: list[Run]) -> Quality:
    scores = [candidate.score(run) for run in runs]
    aucs = [roc_auc(s, run.bad) for s, run in zip(scores, runs, strict=True)]
    precision = [float(average_precision_score(run.bad, s)) for s, run in zip(scores, runs, strict=True)]
    regret = max(run.best() - auc for run, auc in zip(runs, aucs, strict=True))
    return Quality(float(np.mean(aucs)), min(aucs), float(np.mean(precision)), regret)


def _runs(results: Path) -> Iterator[Run]:
    for cell in UNLABELLED:
        for seed in range(10):
            path = result_path(results, cell, seed).with_suffix(".npz")
            if not path.is_file():
                continue
            with np.load(path) as kept:
                values: dict[str, Any] = {n: kept[n].astype(np.float64) for n in kept.files if n in ALL_SIGNALS}
                yield Run(cell.name, seed, values, kept["bad"] > 0)


if __name__ == "__main__":
    main()
