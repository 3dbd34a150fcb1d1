"""What a measurement of fidelity found: for a person, a table and a program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gradstore.sketch.fidelity import Agreement
from gradstore.store.place import Location

_COUNTS = ("sketch_dim", "bytes_a_row", "bytes_of_store")
_QUANTITIES = (
    *("pearson", "spearman", "recall_10", "recall_100", "recall_10_standard_error", "recall_100_standard_error"),
    *("self_influence_error_mean", "self_influence_error_max"),
)
_SCHEMA = pa.schema([pa.field(n, pa.int64()) for n in _COUNTS] + [pa.field(n, pa.float64()) for n in _QUANTITIES])


@dataclass(frozen=True)
class MeasuredLength:
    """One length of sketch: its agreement with exact gradients, and its cost."""

    agreement: Agreement
    bytes_a_row: int
    """Of one example at one checkpoint: all that is kept of one set of parameters and of what sets share."""
    bytes_of_store: int
    """All rows of all checkpoints."""

    def to_json(self) -> dict[str, Any]:
        """Flat, for a table; None where a number is not defined."""
        found = self.agreement
        recalls = {"recall_10": found.recall_10, "recall_100": found.recall_100}
        return {
            "sketch_dim": found.d_sketch,
            "bytes_a_row": self.bytes_a_row,
            "bytes_of_store": self.bytes_of_store,
            "pearson": found.pearson,
            "spearman": found.spearman,
            **{name: None if r is None else r.mean for name, r in recalls.items()},
            **{f"{name}_standard_error": None if r is None else r.standard_error for name, r in recalls.items()},
            "self_influence_error_mean": found.self_influence_error_mean,
            "self_influence_error_max": found.self_influence_error_max,
        }


@dataclass(frozen=True)
class MeasuredDtype:
    """Sketches of the store's length as one dtype keeps them, against the same in float32; and their cost."""

    dtype: str
    measured: MeasuredLength

    def to_json(self) -> dict[str, Any]:
        return {"sketch_dtype": self.dtype, **self.measured.to_json()}


@dataclass(frozen=True)
class FidelityResult:
    """What was measured on a store's own data."""

    store: Location
    n_examples: int
    """Examples of the sample."""
    n_stored: int
    """Examples of the store."""
    parameters: str
    """The set of parameters whose gradients these are."""
    checkpoints: tuple[int, ...]
    sketch_dim: int
    """The store's own length."""
    sketch_dtype: str
    """The store's own."""
    lengths: tuple[MeasuredLength, ...]
    dtypes: tuple[MeasuredDtype, ...]
    recall_asked: float
    recommended: int | None
    """The shortest length measured whose recall@10 reaches what was asked."""
    norm_error: float | None
    """Largest relative difference between the store's norms and those of plain autograd; None in an unfinished
    store."""

    @property
    def best_recall(self) -> tuple[int, float] | None:
        """The length of the highest recall@10, and that recall; None where the sample is too small for it."""
        known = [(m.agreement.d_sketch, m.agreement.recall_10.mean) for m in self.lengths if m.agreement.recall_10]
        return max(known, key=lambda pair: pair[1]) if known else None

    def chance(self, m: int) -> float:
        """Recall@m of lists drawn at random."""
        return m / (self.n_examples - 1)

    def table(self) -> pa.Table:
        """One row a length."""
        return pa.Table.from_pylist([length.to_json() for length in self.lengths], schema=_SCHEMA)

    def to_json(self) -> dict[str, Any]:
        return {
            "store": str(self.store),
            "sampled_examples": self.n_examples,
            "examples": self.n_stored,
            "parameters": self.parameters,
            "checkpoints": list(self.checkpoints),
            "sketch_dim": self.sketch_dim,
            "sketch_dtype": self.sketch_dtype,
            "recall_asked": self.recall_asked,
            "recommended_sketch_dim": self.recommended,
            "largest_relative_difference_of_stored_norms": self.norm_error,
            "rows": [length.to_json() for length in self.lengths],
            "dtypes": [dtype.to_json() for dtype in self.dtypes],
        }
