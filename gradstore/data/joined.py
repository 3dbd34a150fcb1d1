"""Several data sets as one, in their order: what a store is made of to which examples were appended.

Classes are those of the first, by name. Ids stay what they are, but for two choices that are made when a part is
joined, and kept in its description: a prefix that tells its ids from the others', or numbers that go on counting, for
an array file whose ids are nothing but row numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from gradstore.data.source import ExampleSource, Rows, as_indices
from gradstore.errors import MissingLabelsError, SourceError

FORMAT = "joined"
_NUMBERED_BLOCK = 65_536


@dataclass(frozen=True)
class Part:
    """One of the data sets."""

    source: ExampleSource
    prefix: str = ""
    """put before each of its ids"""
    first_number: int | None = None
    """ids are numbers from here on, whatever the source calls them"""
    content: str | None = None
    """hash of it alone, where somebody has scanned it"""

    def ids(self, index: Int[np.ndarray, " row"]) -> list[str]:
        if self.first_number is not None:
            return [str(self.first_number + row) for row in index.tolist()]
        return [self.prefix + name for name in self.source.ids(index)]

    def describe(self) -> dict[str, Any]:
        choices = {"prefix": self.prefix, "first_number": self.first_number, "content": self.content}
        return {"source": self.source.describe(), **choices}


class JoinedSource:
    """An `ExampleSource` of parts.

    Raises:
        SourceError: parts whose examples have another shape or type than those of the first.
        MissingLabelsError: the first part has labels and another has none, or other classes.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = tuple(parts)
        for part in self._parts[1:]:
            _require_like(self._parts[0].source, part.source)
        self._classes = [_classes(self._parts[0].source, part.source) for part in self._parts]
        self._ends = np.cumsum([len(part.source) for part in self._parts])
        self._starts = self._ends - [len(part.source) for part in self._parts]

    @property
    def parts(self) -> tuple[Part, ...]:
        return self._parts

    @property
    def example_shape(self) -> tuple[int, ...]:
        return self._parts[0].source.example_shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._parts[0].source.dtype

    @property
    def label_names(self) -> list[str] | None:
        return self._parts[0].source.label_names

    def __len__(self) -> int:
        return int(self._ends[-1])

    def rows(self, index: Rows) -> Shaped[np.ndarray, "row ..."]:
        indices = as_indices(index, len(self))
        out = np.empty((len(indices), *self.example_shape), self.dtype)
        for number, places, rows in self._shared_out(indices):
            out[places] = self._parts[number].source.rows(rows)
        return out

    def labels(self, index: Rows) -> Int[np.ndarray, " row"] | None:
        if self.label_names is None:
            return None
        indices = as_indices(index, len(self))
        out = np.empty(len(indices), dtype=np.int64)
        for number, places, rows in self._shared_out(indices):
            found, classes = self._parts[number].source.labels(rows), self._classes[number]
            assert found is not None
            assert classes is not None
            out[places] = classes[found]
        return out

    def ids(self, index: Rows) -> list[str]:
        return self._listed(index, lambda number, rows: self._parts[number].ids(rows))

    def paths(self, index: Rows) -> list[str] | None:
        """None unless every part has files of its own."""
        if any(part.source.paths(slice(0, 1)) is None for part in self._parts):
            return None
        return self._listed(index, lambda number, rows: self._parts[number].source.paths(rows) or [])

    def describe(self) -> dict[str, Any]:
        path = self._parts[0].source.describe().get("path")
        return {"format": FORMAT, "path": path, "parts": [part.describe() for part in self._parts]}

    def stamp(self) -> str:
        stamps = "\0".join(part.source.stamp() for part in self._parts)
        return hashlib.blake2b(stamps.encode(), digest_size=16).hexdigest()

    def notes(self) -> list[str]:
        return [note for part in self._parts for note in part.source.notes()]

    def _shared_out(
        self, indices: Int[np.ndarray, " row"]
    ) -> list[tuple[int, Int[np.ndarray, " row"], Int[np.ndarray, " row"]]]:
        """Of each part that is asked: its number, the places of its rows in the answer, their numbers in the part."""
        numbers = np.searchsorted(self._ends, indices, side="right")
        places = [(int(number), np.flatnonzero(numbers == number)) for number in np.unique(numbers)]
        return [(number, at, indices[at] - self._starts[number]) for number, at in places]

    def _listed(self, index: Rows, read: Callable[[int, Int[np.ndarray, " row"]], list[str]]) -> list[str]:
        indices = as_indices(index, len(self))
        out = [""] * len(indices)
        for number, places, rows in self._shared_out(indices):
            for place, name in zip(places.tolist(), read(number, rows), strict=True):
                out[place] = name
        return out


def parts_of(source: ExampleSource) -> tuple[Part, ...]:
    """The parts of a joined source, or the one that any other is."""
    return source.parts if isinstance(source, JoinedSource) else (Part(source),)


def reopen_joined(description: Mapping[str, Any], reopen: Callable[[Mapping[str, Any]], ExampleSource]) -> JoinedSource:
    """What `JoinedSource.describe` described; `reopen` opens a part."""
    parts = description["parts"]
    choices = ("prefix", "first_number", "content")
    return JoinedSource([Part(reopen(part["source"]), **{name: part[name] for name in choices}) for part in parts])


def is_numbered(source: ExampleSource) -> bool:
    """Whether its ids are its row numbers and nothing else."""
    starts = range(0, len(source), _NUMBERED_BLOCK)
    blocks = (range(start, min(start + _NUMBERED_BLOCK, len(source))) for start in starts)
    return all(source.ids(slice(b.start, b.stop)) == [str(row) for row in b] for b in blocks)


def _require_like(first: ExampleSource, other: ExampleSource) -> None:
    expected, found = (first.example_shape, first.dtype.name), (other.example_shape, other.dtype.name)
    if found != expected:
        raise SourceError(
            f"'{_path(other)}' holds {found[1]} examples of shape {list(found[0])}; those of '{_path(first)}' are "
            f"{expected[1]} of shape {list(expected[0])}. Prepare the new examples as the first ones were."
        )


def _classes(first: ExampleSource, other: ExampleSource) -> Int[np.ndarray, " label"] | None:
    """The first's number of each class of another."""
    known, names = first.label_names, other.label_names
    if known is None:
        return None
    if names is None:
        raise MissingLabelsError(f"'{_path(other)}' has no labels and '{_path(first)}' has. Pass --labels FILE.")
    unknown = [name for name in names if name not in known]
    if unknown:
        shown = ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
        raise MissingLabelsError(
            f"'{_path(other)}' has the label {unknown[0]!r}; the classes of '{_path(first)}' are {shown}. "
            "The model was trained for these alone: build a new store for others."
        )
    return np.array([known.index(name) for name in names], dtype=np.int64)


def _path(source: ExampleSource) -> str:
    return str(source.describe().get("path"))
