"""Which rows a search may find: by label, by id, by number; and which it may not: copies of the query.

A filter is one byte an example, whatever the number of queries. What differs from query to query (itself, its
copies) are short lists, one a query: `exclude` of the searches.

Copies. `exact_duplicates` finds rows whose sketch, as stored (float16), and whose exact norm (float32) equal the
query's, bit for bit, at every checkpoint that is compared. Two examples with the same content have that where the
loss is a function of content alone. Where it draws noise by example id (a VAE's), copies have different gradients and
are none in this sense. A row without any gradient is nobody's copy.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int, Int64

from gradstore.errors import QueryError, UnknownExampleError
from gradstore.search.checks import NOTHING, check_one_a_query
from gradstore.search.rows import QuerySketches, SketchRows

if TYPE_CHECKING:
    from gradstore.store.reading import StoreReader

Exclude = Sequence[int] | Sequence[Sequence[int]] | Sequence[Int64[np.ndarray, " row"]]
"""One row a query, -1 for none; or a list of rows a query."""

_SHOWN = 10


@dataclass(frozen=True, eq=False)
class Filter:
    """Rows that a search may find. Filters combine: `a & b`, `a | b`, `~a`.

    Raises:
        QueryError: it lets nothing through.
    """

    allowed: Bool[np.ndarray, " example"]
    what: str = "the filter"
    """in words, for messages"""

    def __post_init__(self) -> None:
        if not self.allowed.any():
            raise QueryError(
                f"Nothing is left to search: {self.what} lets none of {len(self.allowed)} examples through. "
                "Ask for other labels or ids, or leave the filter out."
            )

    @classmethod
    def of_rows(cls, rows: Sequence[int] | Int[np.ndarray, " row"], n_examples: int) -> Filter:
        """These rows alone.

        Raises:
            UnknownExampleError: a row that is not there.
        """
        numbers = np.asarray(rows, dtype=np.int64)
        outside = numbers[(numbers < 0) | (numbers >= n_examples)]
        if outside.size:
            raise UnknownExampleError(f"The store has rows 0 to {n_examples - 1}, not {outside[0]}.")
        allowed = np.zeros(n_examples, dtype=np.bool_)
        allowed[numbers] = True
        return cls(allowed, f"the list of {len(numbers)} rows")

    @classmethod
    def of_ids(cls, store: StoreReader, ids: Sequence[str]) -> Filter:
        """These examples alone.

        Raises:
            UnknownExampleError: names the ids closest to an unknown one.
        """
        return cls.of_rows(store.row_of(ids), store.n_examples)

    @classmethod
    def of_labels(cls, store: StoreReader, labels: Sequence[str | int]) -> Filter:
        """Examples of these classes, by name or by number.

        Raises:
            QueryError: the store has no labels, or no such class; lists those it has.
        """
        classes, names = store.labels(), store.manifest.label_names or ()
        if classes is None:
            raise QueryError("The store has no labels to filter by. Filter by ids, or build a store with labels.")
        known = {**{str(number): number for number in range(len(names))}, **{n: i for i, n in enumerate(names)}}
        unknown = [label for label in labels if str(label) not in known]
        if unknown:
            shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
            raise QueryError(f"The store has no label {unknown[0]!r}; it has {shown}.")
        wanted = [known[str(label)] for label in labels]
        return cls(np.isin(classes, wanted), f"the label {' or '.join(map(str, labels)) or '(none named)'}")

    @classmethod
    def kept(cls, store: StoreReader) -> Filter | None:
        """All but the forgotten examples; None where nothing is forgotten.

        Raises:
            StoreCorruptError: the list of what is forgotten is damaged.
        """
        forgotten = store.forgotten()
        return None if forgotten is None else cls(~forgotten, "the list of forgotten examples")

    def __and__(self, other: Filter) -> Filter:
        return Filter(self.allowed & other.allowed, f"{self.what} and {other.what}")

    def __or__(self, other: Filter) -> Filter:
        return Filter(self.allowed | other.allowed, f"{self.what} or {other.what}")

    def __invert__(self) -> Filter:
        return Filter(~self.allowed, f"all but {self.what}")


def all_of(*filters: Filter | None) -> Filter | None:
    """What all of these let through; None where there is none."""
    given = [filter for filter in filters if filter is not None]
    return functools.reduce(operator.and_, given) if given else None


def exact_duplicates(rows: SketchRows, queries: QuerySketches) -> list[Int64[np.ndarray, " row"]]:
    """The rows that are copies of each query, itself among them where it is of the store; see the module.

    One look at all norms, then at the sketches of those rows alone whose norms agree. `queries` are those of
    `stored_queries`, or others that were sketched to the same bits.
    """
    columns = [np.ascontiguousarray(rows.norms(t)) for t in range(rows.n_checkpoints)]
    asked = queries.norms.T
    possible = np.logical_and.reduce([np.isin(c, a) for c, a in zip(columns, queries.norms, strict=True)])
    candidates = np.flatnonzero(possible & np.any(columns, axis=0))
    keys = _keys(np.stack([c[candidates] for c in columns], axis=1))
    found: dict[bytes, list[int]] = {}
    for key, row in zip(keys, candidates.tolist(), strict=True):
        found.setdefault(key, []).append(row)
    return [
        _same_sketch(rows, np.array(found.get(key, []), dtype=np.int64), queries, query)
        for query, key in enumerate(_keys(asked))
    ]


def _keys(norms: np.ndarray) -> list[bytes]:
    return [row.tobytes() for row in np.ascontiguousarray(norms, dtype=np.float32)]


def _same_sketch(
    rows: SketchRows, candidates: Int64[np.ndarray, " row"], queries: QuerySketches, query: int
) -> Int64[np.ndarray, " row"]:
    for t in range(rows.n_checkpoints):
        if candidates.size:
            mine = queries.unit[t, query].astype(np.float16).view(np.uint16)
            theirs = np.ascontiguousarray(rows.sketch_rows(t, candidates)).view(np.uint16)
            candidates = candidates[(theirs == mine).all(axis=1)]
    return candidates


def excluded_lists(exclude: Exclude | None, n_queries: int) -> list[Int64[np.ndarray, " row"]]:
    """`exclude` as one ascending list a query, each row once.

    Raises:
        ShapeError: not one entry a query.
    """
    if exclude is None:
        return [np.empty(0, np.int64)] * n_queries
    check_one_a_query(len(exclude), n_queries)
    lists = [np.unique(np.asarray(entry, dtype=np.int64).reshape(-1)) for entry in exclude]
    return [rows[rows != NOTHING] for rows in lists]
