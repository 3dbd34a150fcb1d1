"""What a self-test judges signals on: a sample of a store's own data, and known errors in it.

A row of the sample keeps its id, and so the noise that a stochastic loss draws for it. Whatever was forgotten is left
out. Of labelled data every class that has examples has one at least that is drawn and whose label is never changed: a
model that tells ten classes apart is then tested with ten.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, Shaped
from numpy.typing import NDArray

from gradstore.data import ExampleSource, open_source
from gradstore.errors import QueryError, SourceError
from gradstore.evaluation.planting import DUPLICATES, flip_labels, most_alike_classes, plant
from gradstore.ranking.signals.base import has
from gradstore.report import pictures
from gradstore.store import Store
from gradstore.store.place import Location

MISLABELLED, MISLABELLED_ALIKE = "mislabelled", "mislabelled_alike"
LABEL_KINDS = (MISLABELLED, MISLABELLED_ALIKE)
LABEL_KINDS_EXPLAINED = {
    MISLABELLED: "The label is that of another class, each as likely.",
    MISLABELLED_ALIKE: "The label is that of the class that looks most alike.",
}


@dataclass(frozen=True, eq=False)
class Sample:
    """Examples of a store's data, in the order of the store."""

    rows: Int64[np.ndarray, " example"]
    """their numbers in the store"""
    examples: Shaped[np.ndarray, "example ..."]
    ids: list[str]
    labels: Int64[np.ndarray, " example"] | None
    label_names: list[str] | None

    def __len__(self) -> int:
        return len(self.rows)

    def label_name(self, code: int) -> str | None:
        return None if self.label_names is None else self.label_names[code]


@dataclass(frozen=True, eq=False)
class Contaminated:
    """A sample with errors of one kind, and which they are."""

    examples: Shaped[np.ndarray, "example ..."]
    labels: Int64[np.ndarray, " example"] | None
    mask: Bool[np.ndarray, " example"]

    def save(self, path: Path, ids: Sequence[str]) -> None:
        """As a user has data: an .npz archive."""
        labels = {} if self.labels is None else {"labels": self.labels}
        np.savez(path, allow_pickle=False, x=self.examples, ids=np.array(ids, dtype=np.str_), **labels)


def drawn(store: Store, source: ExampleSource, size: int, seed: Sequence[int]) -> Sample:
    """So many examples, all where there are fewer.

    Raises:
        SourceError: the data are not those of the store any more, or cannot be read.
        QueryError: more classes than examples to draw.
    """
    if len(source) != store.n_examples:
        raise SourceError(
            f"The data at '{source.describe().get('path')}' are {len(source):,} examples; '{store.location}' was made "
            f"of {store.n_examples:,}. Put back the data that it was made of."
        )
    labels = source.labels(slice(None))
    rows = _chosen(_allowed(store, labels), labels, size, np.random.default_rng(list(seed)))
    return Sample(
        rows=rows,
        examples=source.rows(rows),
        ids=source.ids(rows),
        labels=None if labels is None else labels[rows],
        label_names=source.label_names,
    )


def contaminated(
    sample: Sample, kind: str, n: int, seed: int, *, foreign: NDArray[Any] | None, n_classes: int
) -> Contaminated:
    """A copy of the sample with n errors.

    Raises:
        QueryError, ShapeError: this kind cannot be planted into these examples; says why.
    """
    if kind in LABEL_KINDS:
        return _mislabelled(sample, kind, n, seed, n_classes)
    as_foreign = None if foreign is None else as_planted(foreign)
    planted, mask = plant(as_planted(sample.examples), kind, n, seed, as_foreign)
    labels = sample.labels
    if kind == DUPLICATES and labels is not None:
        labels = _labels_of_copies(as_planted(sample.examples), planted, labels, mask)
    return Contaminated(_as_read(planted, sample.examples.shape), labels, mask)


def as_planted(examples: Shaped[np.ndarray, "example ..."]) -> Shaped[np.ndarray, "example ..."]:
    """Series as `planting` knows them, [example, step, channel]: array files give them as grey images."""
    if not _is_series_as_image(examples.shape[1:], examples.dtype):
        return examples
    series = examples[:, 0]
    return series.swapaxes(1, 2) if series.shape[2] > series.shape[1] else series


def form_of_examples(example_shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, ...]:
    """The shape of one example as `as_planted` gives it."""
    return as_planted(np.empty((0, *example_shape), dtype)).shape[1:]


def lack_of_labels(store: Store, needs_labels: bool) -> str | None:
    """Why no label can be made wrong in a way that matters; None where it can."""
    if store.labels() is None:
        return "the data have no labels"
    if not has(store, "labels"):
        return "all labels are of one class"
    if store.manifest.n_classes is None and not needs_labels:
        return "the model does not learn from labels"
    return None


def foreign_examples(location: Location, source: ExampleSource, n: int, seed: int) -> NDArray[Any]:
    """Some examples of other data.

    Raises:
        SourceError: they cannot be read, or have another shape or dtype.
    """
    side = source.example_shape[-1] if Path(str(location)).is_dir() else None
    other = open_source(location, image_size=side, on_corrupt="skip")
    expected, found = (source.example_shape, source.dtype.name), (other.example_shape, other.dtype.name)
    if found != expected:
        raise SourceError(
            f"--foreign '{location}' holds {found[1]} examples of shape {list(found[0])}; those of the store are "
            f"{expected[1]} of shape {list(expected[0])}. Prepare them alike, or leave --foreign out."
        )
    rows = np.random.default_rng(seed).choice(len(other), min(n, len(other)), replace=False)
    return np.asarray(other.rows(np.sort(rows)))


def _is_series_as_image(example_shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    return len(example_shape) == 3 and pictures.is_series(np.empty(example_shape, dtype))


def _as_read(planted: Shaped[np.ndarray, "example ..."], shape: tuple[int, ...]) -> Shaped[np.ndarray, "example ..."]:
    """The inverse of `as_planted`."""
    if planted.shape == shape:
        return planted
    series = planted if planted.shape[1:] == shape[2:] else planted.swapaxes(1, 2)
    return np.ascontiguousarray(series.reshape(shape))


def _allowed(store: Store, labels: NDArray[np.int64] | None) -> Bool[np.ndarray, " example"]:
    forgotten = store.forgotten()
    allowed = np.ones(store.n_examples, dtype=bool) if forgotten is None else ~forgotten
    return allowed if labels is None else allowed & (labels >= 0)


def _chosen(
    allowed: Bool[np.ndarray, " example"], labels: NDArray[np.int64] | None, size: int, rng: np.random.Generator
) -> Int64[np.ndarray, " row"]:
    """The first of each class in a random order, and then the first of all."""
    order = rng.permutation(np.flatnonzero(allowed))
    firsts = np.empty(0, dtype=np.int64) if labels is None else _first_of_each(labels[order])
    if len(firsts) > size:
        raise QueryError(f"The data have {len(firsts):,} classes, more than --sample {size}. Draw a larger sample.")
    rest = np.delete(np.arange(len(order)), firsts)
    return np.sort(order[np.concatenate([firsts, rest[: size - len(firsts)]])])


def _first_of_each(labels: NDArray[np.int64]) -> Int64[np.ndarray, " class"]:
    return np.asarray(np.unique(labels, return_index=True)[1], dtype=np.int64)


def _labels_of_copies(
    examples: NDArray[Any], planted: NDArray[Any], labels: NDArray[np.int64], mask: NDArray[np.bool_]
) -> Int64[np.ndarray, " example"]:
    """A copy has the label of what it is a copy of: the marked example that differs from it in fewest values."""
    given, flat = labels.copy(), planted.reshape(len(planted), -1)
    changed = mask & (planted != examples).reshape(len(planted), -1).any(axis=1)
    sources = np.flatnonzero(mask & ~changed)
    for row in np.flatnonzero(changed):
        given[row] = labels[sources[(flat[sources] != flat[row]).sum(axis=1).argmin()]]
    return given


def _mislabelled(sample: Sample, kind: str, n: int, seed: int, n_classes: int) -> Contaminated:
    assert sample.labels is not None
    free = np.ones(len(sample), dtype=bool)
    free[_first_of_each(sample.labels)] = False
    if free.sum() < n:
        raise QueryError(f"with one example of each class left as it is, {free.sum()} are fewer than the {n} to flip")
    towards = None
    if kind == MISLABELLED_ALIKE:
        towards = most_alike_classes(as_planted(sample.examples), sample.labels, n_classes, seed)
    labels, mask = sample.labels.copy(), np.zeros(len(sample), dtype=bool)
    labels[free], mask[free] = flip_labels(sample.labels[free], n, n_classes, seed, towards)
    return Contaminated(sample.examples, labels, mask)
