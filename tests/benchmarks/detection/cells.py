"""What is planted where: a cell is a host, a contamination of it, and the model that learns from the result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradstore.evaluation.planting import flip_labels, most_alike_classes, plant
from tests.benchmarks.detection.hosts import Examples, Host, Labels

IMAGE_MIX = ("inverted", "rotated", "noise", "permuted", "dead_rows", "M")
LABELS = ("uniform", "class-dependent")


@dataclass(frozen=True)
class Cell:
    """One contamination of one host."""

    name: str
    host: str
    kind: str
    """of `gradstore.evaluation.planting`, the name of something foreign, `mixed`, or how labels are flipped"""
    model: str = "vae"
    n: int = 4_080
    """examples at most, bad ones among them"""
    n_bad: int = 80

    @property
    def of_labels(self) -> bool:
        return self.kind in LABELS


@dataclass(frozen=True, eq=False)
class Contaminated:
    """A cell's data as a user has them, and the answer."""

    examples: Examples
    """as the model sees them"""
    bad: NDArray[np.bool_]
    labels: Labels | None = None
    """as given, right or wrong; None where the model needs none"""
    true_labels: Labels | None = None


EIGHT = (
    Cell("F←M", "F", "M"),
    Cell("F←noise", "F", "noise"),
    Cell("F←inverted", "F", "inverted"),
    Cell("F←rotated", "F", "rotated"),
    Cell("F←permuted", "F", "permuted"),
    Cell("M←F", "M", "F"),
    Cell("M←rotated", "M", "rotated"),
    Cell("F←dead rows", "F", "dead_rows"),
)
"""The eight of the field: 4,000 clothes or digits and 80 bad ones."""

UNLABELLED = (
    *EIGHT,
    Cell("F←duplicates", "F", "duplicates"),
    Cell("F←mixed", "F", "mixed"),
    Cell("F←M, autoencoder", "F", "M", "autoencoder"),
    Cell("F←rotated, autoencoder", "F", "rotated", "autoencoder"),
    Cell("pen←shuffled", "pen", "shuffled", "autoencoder"),
    Cell("pen←reversed", "pen", "reversed", "autoencoder"),
    Cell("pen←dead steps", "pen", "dead_steps", "autoencoder"),
    Cell("letters←shuffled", "letters", "shuffled", "autoencoder", 10_200, 200),
    Cell("letters←spiked", "letters", "spiked", "autoencoder", 10_200, 200),
    Cell("Reuters←tales", "Reuters", "tales", "autoencoder", 5_485, 110),
    Cell("Reuters←gibberish", "Reuters", "gibberish", "autoencoder", 5_485, 110),
    Cell("emoji←F", "emoji", "F", "autoencoder", 1_500, 30),
    Cell("emoji←noise", "emoji", "noise", "autoencoder", 1_500, 30),
    Cell("emoji←inverted", "emoji", "inverted", "autoencoder", 1_500, 30),
    Cell("emoji←duplicates", "emoji", "duplicates", "autoencoder", 1_500, 30),
)
FLIPPED = tuple(
    Cell(f"{host}, {kind}", host, kind, "classifier", n, n // 10)
    for host, n in {
        "F": 20_000,
        "M": 10_000,
        "pen table": 8_990,
        "letters": 18_000,
        "Reuters": 5_480,
        "emoji": 1_510,
    }.items()
    for kind in LABELS
)
SHARES = tuple(Cell(f"F, {n_bad / 40:g} % bad", "F", "mixed", n=4_000, n_bad=n_bad) for n_bad in (0, 20, 80, 200, 400))
"""For the cut-off."""
FULL = tuple(Cell(f"{cell.name}, all", cell.host, cell.kind, n=60_000, n_bad=1_200) for cell in EIGHT)
GROUPS = {"unlabelled": UNLABELLED, "labels": FLIPPED, "shares": SHARES, "all": FULL}


def contaminated(cell: Cell, host: Host, seed: int) -> Contaminated:
    """The cell's data with the bad examples of a seed in them."""
    rng = np.random.default_rng([seed, *cell.name.encode()])
    rows = rng.permutation(len(host.examples))[: cell.n]
    if cell.of_labels:
        return _flipped(cell, host, rows, seed)
    changed, bad = _planted(cell, host, host.examples[rows], seed)
    if host.encode is None or host.encoded is None:
        return Contaminated(changed, bad)
    seen = host.encoded[rows]
    seen[bad] = host.encode(changed[bad])
    return Contaminated(seen, bad)


def _planted(cell: Cell, host: Host, examples: Examples, seed: int) -> tuple[Examples, NDArray[np.bool_]]:
    if cell.kind == "mixed":
        return _mixed(cell, host, examples, seed)
    if cell.kind == "gibberish":
        return _gibberish(examples, cell.n_bad, seed)
    if cell.kind == "tales":
        return _replaced(examples, host.foreign["tales"], cell.n_bad, seed)
    foreign = host.foreign.get(cell.kind)
    return plant(examples, cell.kind if foreign is None else "foreign", cell.n_bad, seed, foreign)


def _mixed(cell: Cell, host: Host, examples: Examples, seed: int) -> tuple[Examples, NDArray[np.bool_]]:
    """Of every kind about as many, each in a part of the data of its own."""
    changed, bad = examples.copy(), np.zeros(len(examples), dtype=bool)
    parts = np.array_split(np.arange(len(examples)), len(IMAGE_MIX))
    numbers = [len(part) for part in np.array_split(np.arange(cell.n_bad), len(IMAGE_MIX))]
    for kind, rows, n in zip(IMAGE_MIX, parts, numbers, strict=True):
        foreign = host.foreign.get(kind)
        changed[rows], bad[rows] = plant(examples[rows], kind if foreign is None else "foreign", n, seed, foreign)
    return changed, bad


def _gibberish(texts: NDArray[Any], n: int, seed: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Texts of as many words, each drawn from all words of the corpus."""
    rng = np.random.default_rng(seed)
    words = " ".join(texts).split()
    drawn = [" ".join(words[i] for i in rng.integers(0, len(words), len(text.split()))) for text in texts[:n]]
    return _replaced(texts, np.array(drawn, dtype=object), n, seed)


def _replaced(texts: NDArray[Any], others: NDArray[Any], n: int, seed: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    changed, bad = texts.copy(), np.zeros(len(texts), dtype=bool)
    bad[rng.choice(len(texts), n, replace=False)] = True
    changed[bad] = others[rng.permutation(len(others))[:n]]
    return changed, bad


def _flipped(cell: Cell, host: Host, rows: NDArray[np.int64], seed: int) -> Contaminated:
    seen = (host.examples if host.encoded is None else host.encoded)[rows]
    labels, n_classes = host.labels[rows], int(host.labels.max()) + 1
    alike = cell.kind == "class-dependent"
    towards = most_alike_classes(seen, labels, n_classes, seed=0) if alike else None
    given, wrong = flip_labels(labels, min(cell.n_bad, len(rows) // 10), n_classes, seed, towards)
    return Contaminated(seen, wrong, given, labels)
