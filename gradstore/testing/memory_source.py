"""An ExampleSource that lives in memory: for tests, and for trying a task on arrays that are at hand."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from gradstore.data.source import Rows, as_indices


@dataclass(frozen=True)
class MemorySource:
    """`examples` is [N, *example_shape] uint8, float32 or int64; `classes` is [N] int64; ids are row numbers."""

    examples: Shaped[np.ndarray, "example ..."]
    classes: Int[np.ndarray, " example"] | None = None

    @property
    def example_shape(self) -> tuple[int, ...]:
        return self.examples.shape[1:]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.examples.dtype

    @property
    def label_names(self) -> list[str] | None:
        return None if self.classes is None else [str(label) for label in range(int(self.classes.max()) + 1)]

    def __len__(self) -> int:
        return len(self.examples)

    def rows(self, index: Rows) -> Shaped[np.ndarray, "row ..."]:
        rows: np.ndarray = self.examples[as_indices(index, len(self))]
        return rows

    def labels(self, index: Rows) -> Int[np.ndarray, " row"] | None:
        return None if self.classes is None else self.classes[as_indices(index, len(self))]

    def ids(self, index: Rows) -> list[str]:
        return [str(row) for row in as_indices(index, len(self))]

    def paths(self, index: Rows) -> list[str] | None:
        return None

    def describe(self) -> dict[str, Any]:
        return {"kind": "memory", "shape": list(self.examples.shape), "dtype": self.dtype.name}

    def stamp(self) -> str:
        return hashlib.blake2b(np.ascontiguousarray(self.examples).tobytes(), digest_size=16).hexdigest()

    def notes(self) -> list[str]:
        return []
