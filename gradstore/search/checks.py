"""What a question to a search must satisfy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from gradstore.errors import QueryError, ShapeError
from gradstore.search.rows import QuerySketches, SketchRows

NOTHING = -1


def check_k(k: int, n_examples: int, *, excluding: bool = False) -> None:
    """Refuse a k that the store cannot answer.

    Raises:
        QueryError: k < 1, or larger than the number of rows a query may find.
    """
    available, kind = (n_examples - 1, "other ") if excluding else (n_examples, "")
    check_k_within(k, available, f"the store's {available} {kind}examples")


def check_k_within(k: int, available: int, what: str) -> None:
    """Refuse a k that `available` rows, in words `what`, cannot answer.

    Raises:
        QueryError: k < 1, or larger than `available`.
    """
    if k < 1:
        raise QueryError(f"k={k} is smaller than 1; ask for 1 to {available} examples.")
    if k > available:
        raise QueryError(f"k={k} is larger than {what}; ask for at most {available}")


def excluded_rows(exclude: Sequence[int] | None, n_queries: int) -> Int64[np.ndarray, " query"]:
    """The row that each query may not find; -1 for none.

    Raises:
        ShapeError: not one row a query.
    """
    if exclude is None:
        return np.full(n_queries, NOTHING, dtype=np.int64)
    check_one_a_query(len(exclude), n_queries)
    return np.asarray(exclude, dtype=np.int64)


def check_one_a_query(n_entries: int, n_queries: int) -> None:
    """Refuse a list of excluded rows of another length than there are queries.

    Raises:
        ShapeError: not one entry a query.
    """
    if n_entries != n_queries:
        raise ShapeError(f"exclude names {n_entries} rows for {n_queries} queries; give one a query, or -1 for none.")


def check_queries(rows: SketchRows, queries: QuerySketches) -> None:
    """Refuse queries that were sketched in another way than the rows.

    Raises:
        ShapeError: another number of checkpoints or another d_sketch.
    """
    found = (queries.unit.shape[0], queries.unit.shape[2])
    expected = (rows.n_checkpoints, rows.d_sketch)
    if found != expected:
        raise ShapeError(
            f"The queries have {found[0]} checkpoints of d_sketch={found[1]}; the store has {expected[0]} of "
            f"d_sketch={expected[1]}. Sketch them with the store's own checkpoints and projection."
        )
