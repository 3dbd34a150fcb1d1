"""Building a FAISS index within a stated memory: what it will take is estimated first, then rows go in by blocks.

What is counted: the finished index twice (FAISS's arrays double as they grow, so old and new stand side by side), the
training sample twice (k-means copies it), all norms, and the 64 MiB of the exact search that recall is measured with.
Not counted: what Python, torch and FAISS take before they do anything (some 400 MB).

Training sample: seven eighths drawn by a fixed seed, one eighth the rows with the largest gradients. Those are the
answers to most questions, and a scalar quantizer clips whatever lies outside the ranges that it has seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from gradstore.errors import IndexFileError, QueryError
from gradstore.search.faiss_kinds import KINDS, Kind, import_faiss
from gradstore.search.rotation import Rotation
from gradstore.search.rows import StoredRows
from gradstore.search.vectors import Vectors

DEFAULT_MEMORY = 10**9
_MEASURING = 1 << 26
_SEED = 0


@dataclass(frozen=True)
class Need:
    """Bytes that an index takes."""

    finished: int
    """on disk, and in memory while it is searched"""
    building: int
    """at the peak of its building, with the smallest training sample that will do"""


def needed(kind: Kind, rows: StoredRows, width: int) -> Need:
    """What an index of these rows will take, before any is read."""
    finished = rows.n_examples * kind.row_bytes(width) + kind.fixed_bytes(width, rows.n_examples)
    training = _sample_bytes(_least_training(kind, rows.n_examples), width)
    return Need(finished, _before_training(rows, finished) + training)


def build_faiss(
    kind: Kind, vectors: Vectors, rows: StoredRows, norms: Float32[np.ndarray, "checkpoint example"], memory: int
) -> Any:
    """Train on a sample, then add every row.

    Raises:
        QueryError: it would take more than `memory` bytes; says which kinds would not.
        IndexFileError: FAISS ran out of memory all the same.
    """
    faiss = import_faiss()
    n_training = _training_rows(kind, rows, vectors.width, memory)
    try:
        index = kind.make(faiss, vectors.width, rows.n_examples)
        if not index.is_trained:
            index.train(vectors.rows_at(rows, norms, _sample(norms, n_training)))
        kind.add_all(faiss, index, vectors.blocks(rows, norms), rows.n_examples)
    except (MemoryError, RuntimeError) as error:
        raise IndexFileError(f"FAISS could not build the {kind.name} index of {rows.location}: {error}") from error
    return index


def _training_rows(kind: Kind, rows: StoredRows, width: int, memory: int) -> int:
    """As many as the kind wants and the memory leaves room for."""
    need = needed(kind, rows, width)
    if need.building > memory:
        raise QueryError(
            f"The {kind.name} index of {rows.location} ({rows.n_examples} examples x {width}) takes "
            f"{_gb(need.finished)}, and {_gb(need.building)} while it is built; {_gb(memory)} were allowed. "
            f"Allow more (--memory {_gb(need.building * 1.05).replace(' ', '')}){_smaller(kind, rows, memory)}."
        )
    left = memory - _before_training(rows, need.finished)
    return min(kind.training_rows(rows.n_examples), left // _sample_bytes(1, width))


def _smaller(kind: Kind, rows: StoredRows, memory: int) -> str:
    """Other kinds, where they fit."""
    width = Rotation(rows.n_checkpoints * rows.d_sketch).width
    others = (other for other in KINDS.values() if other.layout != "beside" and other.name != kind.name)
    fitting = [other.name for other in others if needed(other, rows, width).building <= memory]
    return f", or use --kind {' or '.join(fitting)}" if fitting else ""


def _least_training(kind: Kind, n_examples: int) -> int:
    return -(-kind.training_rows(n_examples) // 4)


def _before_training(rows: StoredRows, finished: int) -> int:
    return 2 * finished + 4 * rows.n_checkpoints * rows.n_examples + _MEASURING


def _sample_bytes(n_rows: int, width: int) -> int:
    return 2 * 4 * n_rows * width


def _sample(norms: Float32[np.ndarray, "checkpoint example"], n_rows: int) -> Int64[np.ndarray, " row"]:
    """See the module; rows repeat where there are fewer than asked for."""
    lengths = np.linalg.norm(norms, axis=0)
    n_longest = min(n_rows // 8, len(lengths))
    longest = np.argpartition(-lengths, n_longest - 1)[:n_longest] if n_longest else np.empty(0, np.int64)
    n_drawn = n_rows - n_longest
    drawn = np.random.default_rng(_SEED).choice(len(lengths), n_drawn, replace=n_drawn > len(lengths), shuffle=False)
    return np.sort(np.concatenate([longest, drawn]).astype(np.int64))


def _gb(n_bytes: float) -> str:
    """At least three digits, for people and for --memory."""
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e9 else f"{max(n_bytes / 1e6, 0.001):.3g} MB"
