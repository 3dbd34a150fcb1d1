"""A data set in a bucket, read from its copy on this machine; what it says of itself names the bucket."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from gradstore.data.arrays import ArraySource, description_of
from gradstore.data.labels import read_labels
from gradstore.data.npy_file import npy_rows
from gradstore.data.remote import RemoteFile, fetched, on_this_machine
from gradstore.data.source import ExampleSource, Rows
from gradstore.data.stamp import stamp_files
from gradstore.store.place import Location

FORMAT = "bucket"

Reopen = Callable[[Mapping[str, Any]], ExampleSource]


class BucketSource:
    """An `ExampleSource` of a copy."""

    def __init__(self, copy: ExampleSource, url: str, labels: Location | None) -> None:
        self._copy, self._url, self._labels = copy, url, labels

    @property
    def example_shape(self) -> tuple[int, ...]:
        return self._copy.example_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._copy.dtype

    @property
    def label_names(self) -> list[str] | None:
        return self._copy.label_names

    def __len__(self) -> int:
        return len(self._copy)

    def rows(self, index: Rows) -> Shaped[np.ndarray, "row ..."]:
        return self._copy.rows(index)

    def labels(self, index: Rows) -> Int[np.ndarray, " row"] | None:
        return self._copy.labels(index)

    def ids(self, index: Rows) -> list[str]:
        return self._copy.ids(index)

    def paths(self, index: Rows) -> list[str] | None:
        return self._copy.paths(index)

    def describe(self) -> dict[str, Any]:
        labels = None if self._labels is None else str(self._labels)
        return {"format": FORMAT, "path": self._url, "labels": labels, "copy": self._copy.describe()}

    def stamp(self) -> str:
        files = [self._url, *([self._labels] if self._labels else [])]
        return stamp_files((str(file), file) for file in files)

    def notes(self) -> list[str]:
        return self._copy.notes()


def open_remote_npy(url: str, labels: Location | None) -> ArraySource:
    """A `.npy` file whose rows are fetched when they are asked for.

    Raises:
        SourceNotFoundError: nothing at the URL or at `labels`.
        SourceError: an array that is not one row an example, or labels that do not fit it.
    """
    rows = npy_rows(RemoteFile.at(url))
    read = None if labels is None else read_labels(on_this_machine(labels), len(rows))
    return ArraySource(rows, description=description_of("npy", url, labels), labels=read)


def reopen_bucket(description: Mapping[str, Any], reopen: Reopen) -> BucketSource:
    """The source that `BucketSource.describe` described, from this machine's own copy."""
    url, labels = description["path"], description["labels"]
    here = {"path": str(fetched(url)), **({"labels": str(on_this_machine(labels))} if labels else {})}
    return BucketSource(reopen({**description["copy"], **here}), url, labels)
