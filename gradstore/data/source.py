"""ExampleSource: random access to the rows of a data set, whatever its format.

Memory does not grow with the number of examples: a source holds file positions or names, never rows.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int, Shaped

Rows = Int[np.ndarray, " row"] | slice


@runtime_checkable
class ExampleSource(Protocol):
    """A data set opened for reading. Every implementation inherits `gradstore.testing.source_kit.SourceContract`.

    `index` is always a slice, clipped to the length as Python does, or an array of row numbers, where a number
    below 0 or beyond the end is an IndexError.
    """

    @property
    def example_shape(self) -> tuple[int, ...]:
        """Shape of one example. Images are channels first: (C, H, W)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8, float32 or int64: what `rows` returns."""

    @property
    def label_names(self) -> list[str] | None:
        """Name of class 0, 1, …; None without labels."""

    def __len__(self) -> int: ...

    def rows(self, index: Rows) -> Shaped[np.ndarray, "row ..."]:
        """[n, *example_shape], in the order asked for; `index` is a slice or int64 row numbers."""

    def labels(self, index: Rows) -> Int[np.ndarray, " row"] | None:
        """[n] int64 class numbers, or None when the data has none."""

    def ids(self, index: Rows) -> list[str]:
        """Stable names, unique within the source."""

    def paths(self, index: Rows) -> list[str] | None:
        """The file of each example where each has one of its own."""

    def describe(self) -> dict[str, Any]:
        """JSON from which `gradstore.data.reopen` opens the same source in another process."""

    def stamp(self) -> str:
        """Cheap fingerprint (names, sizes, modification times): unchanged means that nobody touched the files."""

    def notes(self) -> list[str]:
        """Sentences for a person: what was chosen for them and what was left out."""


def as_indices(index: Shaped[np.ndarray, "..."] | slice, length: int) -> Int[np.ndarray, " row"]:
    """Row numbers of a slice or an array.

    >>> as_indices(slice(7, 99), 10)
    array([7, 8, 9])

    Raises:
        IndexError: the array holds something else than row numbers 0 … length - 1.
    """
    if isinstance(index, slice):
        return np.arange(*index.indices(length), dtype=np.int64)
    indices = np.asarray(index)
    if indices.size == 0:
        return np.empty(0, dtype=np.int64)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise IndexError(f"rows are numbered by a vector of integers, not by {indices.dtype} {indices.shape}.")
    lowest, highest = indices.min(), indices.max()
    if lowest < 0 or highest >= length:
        raise IndexError(f"row {highest if highest >= length else lowest} is outside 0 … {length - 1}.")
    return indices.astype(np.int64, copy=False)


def as_run(index: Rows, length: int) -> range | None:
    """The rows as one range, which a file gives out in one piece; None when they are scattered.

    >>> as_run(np.array([3, 4, 5]), 10), as_run(np.array([5, 3]), 10)
    (range(3, 6), None)
    """
    if isinstance(index, slice):
        run = range(length)[index]
        return run if run.step == 1 else None
    indices = as_indices(index, length)
    if len(indices) == 0:
        return range(0)
    return range(int(indices[0]), int(indices[-1]) + 1) if np.all(np.diff(indices) == 1) else None
