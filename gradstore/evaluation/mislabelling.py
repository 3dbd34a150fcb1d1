"""Labels known to be wrong: moved to any other class, or to the one that a person would mistake it for."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import NDArray

from gradstore.errors import QueryError, ShapeError
from gradstore.evaluation.distortions.forms import form_of

N_NEIGHBOURS = 5
_AT_MOST = 6000
_MEMORY = 64
"""MiB of distances at once."""


def flip_labels(
    labels: Int[np.ndarray, " example"],
    n: int,
    n_classes: int,
    seed: int,
    towards: Int[np.ndarray, " class"] | None = None,
) -> tuple[Int[np.ndarray, " example"], Bool[np.ndarray, " example"]]:
    """A copy of `labels` with n moved to another class, and the mask that says which.

    Args:
        labels: -1 where an example has none; these are never flipped.
        towards: for each class the one that it is mistaken for, such as `most_alike_classes`; without it any other,
            each as likely. The same examples are flipped with and without.

    Raises:
        QueryError: fewer than two classes, fewer than n labels, or classes that there are not.

    >>> flip_labels(np.array([0, 1, 2]), 3, 3, seed=0, towards=np.array([1, 0, 0]))[0]
    array([1, 0, 0])
    """
    given = np.flatnonzero(labels >= 0)
    if n_classes < 2:
        raise QueryError(f"Labels of {n_classes} class cannot be flipped: two classes are needed.")
    if not 0 <= n <= len(given):
        raise QueryError(f"Cannot flip {n} labels of {len(given)}; ask for 0 to {len(given)}.")
    _require_known(labels, n_classes)
    rng = np.random.default_rng(seed)
    mask = np.zeros(len(labels), dtype=bool)
    mask[given[rng.choice(len(given), n, replace=False)]] = True
    flipped = labels.copy()
    if towards is None:
        flipped[mask] = (labels[mask] + rng.integers(1, n_classes, n)) % n_classes
    else:
        _require_other(towards, np.unique(labels[given]), n_classes)
        flipped[mask] = towards[labels[mask]]
    return flipped, mask


def most_alike_classes(
    examples: Shaped[np.ndarray, "example ..."], labels: Int[np.ndarray, " example"], n_classes: int, seed: int
) -> Int[np.ndarray, " class"]:
    """For each class the other one most frequent among the 5 nearest neighbours of its examples; -1 for one without.

    Of each class as many examples as make 6,000 in all, by `seed`. A class that no neighbour is outside of is given
    the class of its nearest outsiders; of equals the first counts.

    Args:
        examples: [N, d] floats (a table, features) are compared after division of each column by its standard
            deviation, for their units differ; [N, d] whole numbers, which are tokens, by the cosine of their counts;
            pictures and series value by value.
        labels: -1 where an example has none.

    Raises:
        QueryError: fewer than two classes have examples, or a label that is no class.
        ShapeError: not one label an example.
    """
    if len(examples) != len(labels):
        raise ShapeError(f"{len(examples)} examples have {len(labels)} labels; give one each, -1 for none.")
    _require_known(labels, n_classes)
    present = np.unique(labels[labels >= 0])
    if len(present) < 2:
        raise QueryError(
            f"Examples of {len(present)} of {n_classes} classes are here; which classes are alike needs two."
        )
    rows = _of_each(labels, present, max(_AT_MOST // len(present), 1), np.random.default_rng(seed))
    near, outside = _neighbours(examples[rows], labels[rows])
    towards = np.full(n_classes, -1, dtype=np.int64)
    for c in present:
        of_class = labels[rows] == c
        others = near[of_class][near[of_class] != c]
        towards[c] = np.bincount(others if others.size else outside[of_class]).argmax()
    return towards


def _of_each(
    labels: Int[np.ndarray, " example"], present: Int[np.ndarray, " present"], most: int, rng: np.random.Generator
) -> Int[np.ndarray, " row"]:
    chosen = [rng.permutation(np.flatnonzero(labels == c))[:most] for c in present]
    return np.sort(np.concatenate(chosen))


def _neighbours(
    examples: NDArray[Any], labels: Int[np.ndarray, " example"]
) -> tuple[Int[np.ndarray, "example k"], Int[np.ndarray, " example"]]:
    """Labels of each example's nearest others, and of the nearest of another class."""
    from sklearn.metrics import pairwise_distances_chunked

    k = min(N_NEIGHBOURS, len(labels) - 1)

    def labels_of_nearest(distances: Float[np.ndarray, "row example"], start: int) -> NDArray[np.int64]:
        rows = np.arange(len(distances))
        distances[rows, start + rows] = np.inf
        near = labels[np.argpartition(distances, k - 1, axis=1)[:, :k]]
        distances[labels[start + rows][:, None] == labels] = np.inf
        return np.column_stack([near, labels[distances.argmin(axis=1)]])

    points, metric = _as_points(examples)
    parts = pairwise_distances_chunked(points, reduce_func=labels_of_nearest, metric=metric, working_memory=_MEMORY)
    found = np.concatenate(list(parts))
    return found[:, :k], found[:, k]


def _as_points(examples: NDArray[Any]) -> tuple[Any, str]:
    """What is compared, and how."""
    form = form_of(examples.shape[1:], examples.dtype)
    if form == "tokens":
        tokens, codes = np.unique(examples, return_inverse=True)
        texts = np.repeat(np.arange(len(examples)), examples.shape[1])
        shape = (len(examples), len(tokens))
        return sp.csr_matrix((np.ones(examples.size), (texts, codes.reshape(-1))), shape=shape), "cosine"
    points = examples.reshape(len(examples), -1).astype(np.float32)
    if form == "table":
        deviation = points.std(axis=0, dtype=np.float64)
        points = points[:, deviation > 0] / deviation[deviation > 0].astype(np.float32)
    return points if points.shape[1] else np.zeros((len(points), 1), np.float32), "euclidean"


def _require_known(labels: Int[np.ndarray, " example"], n_classes: int) -> None:
    strange = labels[(labels < -1) | (labels >= n_classes)]
    if strange.size:
        raise QueryError(
            f"Label {strange[0]} is no class: {n_classes} classes have the numbers 0 to {n_classes - 1}, and -1 stands "
            "for none. Number the classes from 0."
        )


def _require_other(towards: Int[np.ndarray, " class"], present: Int[np.ndarray, " present"], n_classes: int) -> None:
    """Every class that has examples must be mistaken for another."""
    if towards.shape != (n_classes,):
        raise QueryError(f"`towards` has the shape {towards.shape}; give one class for each of {n_classes}.")
    wrong = present[(towards[present] == present) | (towards[present] < 0) | (towards[present] >= n_classes)]
    if wrong.size:
        raise QueryError(
            f"`towards` has class {wrong[0]} mistaken for {towards[wrong[0]]}; expected another class, from 0 to "
            f"{n_classes - 1}."
        )
