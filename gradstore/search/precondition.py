"""The preconditioned reading: dot products in leverage's metric.

    score(q, x) = sum_t eta_t g_t(q)^T M_t g_t(x)        M_t = (C_t + damping · mean(diag C_t) · I)^-1

C_t is the mean outer product of the store's raw sketches at checkpoint t. Directions that every example's gradient
shares count little, those that few have count much: leverage is the score of an example with itself, eta aside.

M_t is applied to the query, once: M_t g_t(q) is a vector like any other, so the same stored rows are searched, by
the same scan and by any index of raw influence. Normalised readings divide by r(x), here the root of
sum_t eta_t g_t(x)^T M_t g_t(x); a second pass over the store finds that of every example. Their meaning: `cosine` is
the correlation of two gradients once the data set's own spread is taken out; `relatif` is l-RelatIF (Barshan et al.
2020, arXiv:2003.11630) with the gradients' second moment for the Hessian, a query's influence for a given
self-influence.

Cost: one pass and a d_sketch² product a row for C; for the normalised readings another such pass. Memory: a few
square matrices of width d_sketch, one of them a checkpoint; 8 bytes an example once r(x) is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float32, Float64
from scipy.linalg import cho_solve

from gradstore.errors import ShapeError
from gradstore.influence.whitening import DAMPING, damped_factor, solved_sq_norms
from gradstore.search.filters import Filter
from gradstore.search.rows import QuerySketches, SketchRows, all_norms, block_rows_within
from gradstore.search.searchable import Searchable
from gradstore.search.weights import inverse


class Preconditioner:
    """M_t of a store at chosen checkpoints; make one with `fit`, use it for any number of searches."""

    def __init__(
        self,
        rows: Searchable,
        factors: list[Float64[np.ndarray, "d_sketch d_sketch"] | None],
        mean_norms: Float64[np.ndarray, " checkpoint"],
        filter: Filter | None = None,
    ) -> None:
        self._rows, self._factors, self._mean_norms, self._filter = rows, factors, mean_norms, filter
        self._roots: Float64[np.ndarray, " example"] | None = None

    @classmethod
    def fit(
        cls,
        rows: SketchRows,
        *,
        checkpoints: Sequence[int] | None = None,
        damping: float = DAMPING,
        filter: Filter | None = None,
    ) -> Preconditioner:
        """C_t of the rows that can be searched now, in one pass.

        Args:
            rows: a store.
            checkpoints: those that will be searched; all by default.
            damping: relative to the mean diagonal of C_t; 1e-3 suits detection (`gradstore.influence.whitening`).
            filter: the rows whose mean C_t is; by default all.

        Raises:
            QueryError: negative damping; none, and gradients that do not span the sketch; an unknown checkpoint.
            StoreCorruptError: gradient norms that are not finite numbers.
        """
        searchable = Searchable.of(rows, checkpoints)
        norms, n_searched = all_norms(searchable), searchable.coverage.n_searched
        n_rows = n_searched if filter is None else int((filter.allowed & searchable.done()).sum())
        means = (norms if filter is None else norms[:, filter.allowed]).sum(axis=1, dtype=np.float64) / n_rows
        made = cls(searchable, [], means, filter)
        factors = [
            damped_factor(lambda t=t: made._relative(t), rows.d_sketch, damping)  # type: ignore[misc]
            for t in range(searchable.n_checkpoints)
        ]
        # Rows that do not count come as zeros: they add nothing to the sum, and are taken out of the number here.
        scale = math.sqrt(n_searched / n_rows)
        made._factors = [None if factor is None else factor * scale for factor in factors]
        return made

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Which of the store's checkpoints it was made at."""
        return self._rows.checkpoints

    def apply(self, queries: QuerySketches) -> QuerySketches:
        """M_t g_t(q) in place of g_t(q), for a search by raw influence; `queries` are at `checkpoints`.

        Raises:
            ShapeError: another number of checkpoints or another d_sketch.
        """
        self._check(queries)
        solved = np.stack([self._solved(t, queries) for t in range(len(self._factors))])
        return QuerySketches.from_sketches(solved, np.square(solved).sum(axis=2))

    def query_roots(self, queries: QuerySketches) -> Float64[np.ndarray, " query"]:
        """r(q), as `example_roots` has it."""
        self._check(queries)
        squares = np.zeros(len(queries))
        for t, eta in enumerate(self._rows.learning_rates):
            raw = queries.unit[t] * queries.norms[t][:, None].astype(np.float64)
            squares += eta * np.einsum("qd,qd->q", raw, self._solved(t, queries))
        return np.sqrt(np.maximum(squares, 0.0))

    def example_roots(self) -> Float64[np.ndarray, " example"]:
        """r(x) = sqrt(sum_t eta_t g_t(x)^T M_t g_t(x)) of every example, computed once; 0 where rows do not count."""
        if self._roots is None:
            squares = np.zeros(self._rows.n_examples)
            for t, (eta, factor) in enumerate(zip(self._rows.learning_rates, self._factors, strict=True)):
                if factor is not None:
                    self._add_sq_norms(squares, t, float(eta), factor.astype(np.float32))
            self._roots = np.sqrt(squares)
        return self._roots

    def _add_sq_norms(
        self,
        squares: Float64[np.ndarray, " example"],
        checkpoint: int,
        eta: float,
        factor: Float32[np.ndarray, "d_sketch d_sketch"],
    ) -> None:
        spans = self._rows.blocks(self._block_rows())
        for (start, stop), rows in zip(spans, self._relative(checkpoint), strict=True):
            squares[start:stop] += eta * solved_sq_norms(factor, rows)

    def _solved(self, checkpoint: int, queries: QuerySketches) -> Float64[np.ndarray, "query d_sketch"]:
        """M_t g: the factor is of rows divided by their mean norm, hence twice that division."""
        raw = queries.unit[checkpoint] * queries.norms[checkpoint][:, None].astype(np.float64)
        factor = self._factors[checkpoint]
        if factor is None:
            return np.zeros_like(raw)
        return np.asarray(cho_solve((factor, True), raw.T).T / self._mean_norms[checkpoint] ** 2)

    def _relative(self, checkpoint: int) -> Iterator[Float32[np.ndarray, "row d_sketch"]]:
        """Raw sketches divided by the checkpoint's mean norm; zero where there is no gradient or it does not count."""
        scale = self._rows.norms(checkpoint) * inverse(self._mean_norms[checkpoint : checkpoint + 1])
        if self._filter is not None:
            scale = np.where(self._filter.allowed, scale, 0.0)
        for start, stop in self._rows.blocks(self._block_rows()):
            factors = scale[start:stop, None].astype(np.float32)
            units = self._rows.precise_sketches(checkpoint, start, stop)
            yield np.where(factors > 0, units * factors, np.float32(0))

    def _block_rows(self) -> int:
        return block_rows_within(4 * self._rows.d_sketch)

    def _check(self, queries: QuerySketches) -> None:
        found, expected = queries.unit.shape[::2], (len(self._factors), self._rows.d_sketch)
        if found != expected:
            raise ShapeError(
                f"The queries have {found[0]} checkpoints of d_sketch={found[1]}; the preconditioner was made at "
                f"checkpoints {', '.join(map(str, self.checkpoints))} of d_sketch={expected[1]}. "
                "Use queries.at(preconditioner.checkpoints)."
            )
