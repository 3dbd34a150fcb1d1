"""The labels that examples came with, as signals about labels read them.

An example without a label has none that could be wrong: whatever the signal, it gets the lowest value that a labelled
one has.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from gradstore.errors import QueryError
from gradstore.ranking.signals.base import SignalStore, Values

Block = tuple[slice, Float32[np.ndarray, "row class"]]
Checkpoints = tuple[slice, Float32[np.ndarray, "checkpoint row class"]]


def given_labels(store: SignalStore) -> Int64[np.ndarray, " example"]:
    """[N] class numbers, -1 where an example has none.

    Raises:
        QueryError: the store has no labels, or one that is none of the model's classes.
    """
    labels = store.labels()
    if labels is None:
        raise QueryError(
            "A signal about labels needs labels, and no example of this store has one. Build with --labels."
        )
    wide: Int64[np.ndarray, " example"] = labels.astype(np.int64)
    if store.keeps("predictions"):
        _require_in_range(store, wide, n_classes_of(store))
    return wide


def n_classes_of(store: SignalStore) -> int:
    """How many classes the model tells apart; without predictions, how many are named by labels."""
    if store.keeps("predictions"):
        return int(store.predictions(0, 0, 1).shape[1])
    labels = store.labels()
    return 0 if labels is None else int(labels.max(initial=-1)) + 1


def prediction_blocks(store: SignalStore) -> Iterator[Checkpoints]:
    """(rows, [C, n, n_classes] log-probabilities) block by block.

    Raises:
        QueryError: NaN, or infinity; names the example.
    """
    for start, stop in store.blocks():
        read = [store.predictions(c, start, stop).astype(np.float32) for c in range(store.n_checkpoints)]
        found = np.stack(read)
        _require_finite(store, found, start)
        yield slice(start, stop), found


def mean_log_probabilities(store: SignalStore) -> Iterator[Block]:
    """(rows, [n, n_classes]) log-probabilities, means over checkpoints, block by block.

    Raises: as `prediction_blocks`.
    """
    for rows, found in prediction_blocks(store):
        yield rows, found.mean(axis=0)


def of_given(values: Float[np.ndarray, "row class"], labels: Int64[np.ndarray, " row"]) -> Float[np.ndarray, " row"]:
    """Each row's number at its own label; the last class's where it has none.

    >>> of_given(np.array([[0.1, 0.9], [0.6, 0.4]]), np.array([1, 0]))
    array([0.9, 0.6])
    """
    return np.asarray(np.take_along_axis(values, labels[:, None], axis=1)[:, 0])


def largest_other(
    values: Float[np.ndarray, "row class"], labels: Int64[np.ndarray, " row"]
) -> Float[np.ndarray, " row"]:
    """Each row's largest number at another class than its label; its own where there is no other class.

    >>> largest_other(np.array([[0.1, 0.9], [0.6, 0.4]]), np.array([1, 0]))
    array([0.1, 0.4])
    """
    if values.shape[1] < 2:
        return of_given(values, labels)
    others = values.copy()
    np.put_along_axis(others, labels[:, None], -np.inf, axis=1)
    return np.asarray(others.max(axis=1))


def unlabelled_lowest(values: Values, labels: Int64[np.ndarray, " example"]) -> Values:
    """Examples without a label get the lowest value of those with one."""
    known: Bool[np.ndarray, " example"] = labels >= 0
    return np.where(known, values, values[known].min()) if known.any() else np.zeros(len(values))


def _require_in_range(store: SignalStore, labels: Int64[np.ndarray, " example"], n_classes: int) -> None:
    outside = np.flatnonzero(labels >= n_classes)
    if len(outside):
        row = int(outside[0])
        raise QueryError(
            f"Example {store.ids(row, row + 1)[0]!r} has the label {labels[row]} ({len(outside):,} such); the model "
            f"tells {n_classes} classes apart, 0 to {n_classes - 1}. Build with the labels that its model learned from."
        )


def _require_finite(store: SignalStore, found: Float32[np.ndarray, "checkpoint row class"], start: int) -> None:
    bad = np.flatnonzero(~np.isfinite(found).all(axis=(0, 2)))
    if len(bad):
        row = start + int(bad[0])
        raise QueryError(
            f"The model's predictions of example {store.ids(row, row + 1)[0]!r} are NaN or infinite ({len(bad)} such "
            f"among {found.shape[1]} examples from row {start}). Signals about labels need finite ones: run gradstore "
            "verify, and build again from a training that did not diverge."
        )
