"""Rows and queries as the vectors whose inner product is the score: what FAISS is given.

    score(q, x) = <A(q), B(x)>      A = [sqrt(eta_t) n_t(q) u_t(q)]_t,  B = [sqrt(eta_t) n_t(x) u_t(x)]_t

with B (and then A) divided by its root self-influence where the reading is normalised. Cosine and relatif order rows
alike, so they share an index. Opponents: search with -A.

Three forms, one a family of indexes:

- `beside`: checkpoints side by side, as they are. The flat index.
- `rotated`: folded into at most 1,024 coordinates (`gradstore.search.rotation`). One-bit codes.
- `lifted`: rotated, and the last coordinate replaced by sqrt(L^2 - |B|^2): all rows then have length L, and the
  largest inner product is the nearest point (Neyshabur & Srebro 2015, arXiv:1410.5518). Cells (IVF) and graphs (HNSW)
  need it: FAISS builds both for inner products too, but a row that is long is then everybody's neighbour. Measured on
  20,000 gradients of Fashion-MNIST, recall of the best 100: IVF, an eighth of the cells looked at, .80 by inner
  product, .96 lifted; HNSW, 512 candidates, .80 and .97. What the estimate loses with that coordinate, re-ranking
  makes up for. Stored is the new coordinate less L (and for queries 0 less L): distances are the same, and float16 can
  tell the short rows apart, all of which lie near L.

Rows are scaled by one power of two for the whole index, so that the longest is near 2^10: float16 then reaches from
2^-24 to 2^15, which no pair of real gradients spans. Queries are given the length of the longest rows: gradients of
any size fit into float32, and one-bit codes, which quantize query minus mean row, see the query and not the mean
(recall with queries of length 1: .39 instead of .999).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64

from gradstore.search.rotation import Rotation
from gradstore.search.rows import QuerySketches, SketchRows, to_device
from gradstore.search.weights import Normalise, check_normalise, inverse, root_self_influence

Form = Literal["none", "cosine"]
Layout = Literal["beside", "rotated", "lifted"]

LONGEST = 2.0**10
_LIFT = 1.25 * LONGEST
"""L: a sketch is now and then longer than its gradient, by a few per cent."""
_BLOCK_ROWS = 1024  # a block of 512 coordinates stays in the cache; 4,096 rows are 20 % slower


def stored_form(normalise: Normalise) -> Form:
    """Which index serves a reading."""
    check_normalise(normalise)
    return "none" if normalise == "none" else "cosine"


@dataclass(frozen=True)
class Vectors:
    """How an index sees the rows of a store, and queries to it."""

    layout: Layout
    form: Form
    learning_rates: tuple[float, ...]
    d_sketch: int
    scale: float
    """What B is multiplied by."""

    @classmethod
    def of(
        cls, rows: SketchRows, norms: Float32[np.ndarray, "checkpoint example"], layout: Layout, form: Form
    ) -> Vectors:
        """The form that fits these rows; `norms` are all of theirs."""
        rates = rows.learning_rates
        longest = np.sqrt(np.square(_weights(norms, rates, form)).sum(axis=0)).max(initial=0.0)
        scale = 2.0 ** math.floor(math.log2(LONGEST / (float(longest) or 1.0)))
        return cls(layout, form, tuple(rates.tolist()), rows.d_sketch, scale)

    @property
    def width(self) -> int:
        """Coordinates of a vector."""
        return self.d_sketch * len(self.learning_rates) if self.layout == "beside" else self._rotation.width

    def blocks(
        self, rows: SketchRows, norms: Float32[np.ndarray, "checkpoint example"]
    ) -> Iterator[Float32[np.ndarray, "row width"]]:
        """Every row, in store order, a block at a time."""
        for start, stop in rows.blocks(_BLOCK_ROWS):
            units = (_float32(rows.unit_sketches(t, start, stop)) for t in range(rows.n_checkpoints))
            yield self._rows(units, norms[:, start:stop])

    def rows_at(
        self, rows: SketchRows, norms: Float32[np.ndarray, "checkpoint example"], indices: Int64[np.ndarray, " row"]
    ) -> Float32[np.ndarray, "row width"]:
        """Chosen rows."""
        units = (_float32(rows.sketch_rows(t, indices)) for t in range(rows.n_checkpoints))
        return self._rows(units, norms[:, indices])

    def queries(self, queries: QuerySketches) -> Float32[np.ndarray, "query width"]:
        """A(q) at length L or about, whatever its own."""
        vectors = self._in_layout(queries.unit, self._weights(queries.norms, "cosine") * _LIFT)
        if self.layout == "lifted":
            vectors[:, -1] = -_LIFT
        return vectors

    def _rows(
        self, units: Iterable[Float32[np.ndarray, "row d_sketch"]], norms: Float32[np.ndarray, "checkpoint row"]
    ) -> Float32[np.ndarray, "row width"]:
        vectors = self._in_layout(units, self._weights(norms, self.form) * np.float32(self.scale))
        if self.layout == "lifted":
            vectors[:, -1] = 0
            squares = np.einsum("rd,rd->r", vectors, vectors)
            vectors[:, -1] = -squares / (np.sqrt(np.maximum(_LIFT**2 - squares, 0)) + _LIFT)
        return vectors

    def _weights(
        self, norms: Float32[np.ndarray, "checkpoint row"], form: Form
    ) -> Float64[np.ndarray, "checkpoint row"]:
        return _weights(norms, np.array(self.learning_rates), form)

    def _in_layout(
        self, units: Iterable[Float32[np.ndarray, "row d_sketch"]], weights: Float64[np.ndarray, "checkpoint row"]
    ) -> Float32[np.ndarray, "row width"]:
        vectors = _side_by_side(units, weights.astype(np.float32))
        return vectors if self.layout == "beside" else self._rotation.apply(vectors)

    @cached_property
    def _rotation(self) -> Rotation:
        return Rotation(len(self.learning_rates) * self.d_sketch)


def _weights(
    norms: Float32[np.ndarray, "checkpoint row"], learning_rates: Float64[np.ndarray, " checkpoint"], form: Form
) -> Float64[np.ndarray, "checkpoint row"]:
    """sqrt(eta_t) n_t, divided by the root self-influence for the cosine form."""
    weights = np.sqrt(learning_rates)[:, None] * norms.astype(np.float64)
    return np.asarray(weights if form == "none" else weights * inverse(root_self_influence(norms, learning_rates)))


def _side_by_side(
    units: Iterable[Float32[np.ndarray, "row d_sketch"]], weights: Float32[np.ndarray, "checkpoint row"]
) -> Float32[np.ndarray, "row width"]:
    """A row without a gradient is zero, whatever the store holds for it."""
    vectors: Float32[np.ndarray, "row width"] | None = None
    for t, (unit, factors) in enumerate(zip(units, weights, strict=True)):
        if vectors is None:
            vectors = np.empty((len(unit), len(weights) * unit.shape[1]), np.float32)
        part = vectors[:, t * unit.shape[1] : (t + 1) * unit.shape[1]]
        np.multiply(unit, factors[:, None], out=part)
        part[factors == 0] = 0
    assert vectors is not None
    return vectors


def _float32(sketches: Float[np.ndarray, "row d_sketch"]) -> Float32[np.ndarray, "row d_sketch"]:
    """By torch: 0.14 us for a row of 512, where numpy takes 1.35."""
    return to_device(sketches, torch.float32, "cpu").numpy()
