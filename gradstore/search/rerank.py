"""Candidates of an approximate index, scored again exactly as the exact search scores them: the same bits.

What an approximate index gets wrong is then only which rows it proposes, never a score or the order of two rows.
Why the bits agree: dot products are exact in float64 (`gradstore.search.question`), and the weights are multiplied and
the checkpoints summed in the same order.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from gradstore.search.filters import Filter
from gradstore.search.neighbours import Neighbours
from gradstore.search.question import Asked, Question
from gradstore.search.rows import QuerySketches
from gradstore.search.scattered import ScatteredRows
from gradstore.search.weights import Normalise, example_weights, query_weights


def rerank(
    rows: ScatteredRows,
    queries: QuerySketches,
    candidates: Int64[np.ndarray, "query candidate"],
    k: int,
    *,
    norms: Float32[np.ndarray, "checkpoint example"],
    learning_rates: Float64[np.ndarray, " checkpoint"],
    largest: bool,
    normalise: Normalise,
    excluded: list[Int64[np.ndarray, " row"]],
    filter: Filter | None = None,
) -> tuple[Neighbours, Bool[np.ndarray, " query"]]:
    """The best k of each query's candidates, best first, the lower row first among equals.

    Args:
        rows: the store.
        candidates: row numbers, -1 for none, in any order.
        norms: of all examples.
        excluded: the rows that each query may not find.
        filter: the rows that any may find.

    Returns:
        The neighbours, and which queries had k candidates; the rows of the others are not filled.
    """
    question = Question(Asked.of(queries, query_weights(queries.norms, learning_rates, normalise), None), "cpu")
    units, asked = question.units.numpy(), question.weights.numpy()
    indices = np.full((len(queries), k), -1, dtype=np.int64)
    scores = np.zeros((len(queries), k), dtype=np.float32)
    complete = np.zeros(len(queries), dtype=np.bool_)
    for q, proposed in enumerate(candidates):
        wanted = np.setdiff1d(proposed[proposed >= 0], excluded[q])
        wanted = wanted if filter is None else wanted[filter.allowed[wanted]]
        if len(wanted) < k:
            continue
        weights = example_weights(norms[:, wanted], learning_rates, normalise)
        found = _scores(rows, wanted, units[:, q], asked[:, q], weights)
        best = np.argsort(-found if largest else found, kind="stable")[:k]
        indices[q], scores[q], complete[q] = wanted[best], (found[best] + 0.0).astype(np.float32), True
    return Neighbours(indices, scores), complete


def _scores(
    rows: ScatteredRows,
    wanted: Int64[np.ndarray, " row"],
    query: Float32[np.ndarray, "checkpoint d_sketch"],
    asked: Float64[np.ndarray, " checkpoint"],
    weights: Float64[np.ndarray, "checkpoint row"],
) -> Float64[np.ndarray, " row"]:
    """sum_t a_t <u_t(q), u_t(x)> b_t(x); 0 for a row without a gradient, whatever the store holds for it."""
    scores = np.zeros(len(wanted))
    for t, weight in enumerate(weights):
        dots = rows.dots(t, wanted, query[t])
        scores += np.where(weight == 0, 0.0, dots * asked[t] * weight)
    return scores
