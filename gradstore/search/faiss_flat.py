"""FAISS flat index: every row as one vector, all checkpoints side by side, scanned by FAISS's float16 kernel.

    score(q, x) = <A(q), B(x)>      A = [sqrt(eta_t) n_t(q) u_t(q)]_t,  B = [sqrt(eta_t) n_t(x) u_t(x)]_t

with B (and then A) divided by its root self-influence where the index is normalised. Opponents: search with -A.

Why float16: the store is float16, so wider storage would only pad. One power of two for the whole index places the
largest row near 2^10: FAISS's float16 then reaches from 2^-24 to 2^15, which no pair of real gradient norms spans,
and being a power of two it costs no accuracy. Rounding n_t(x) u_t(x) once more makes a score err by at most
2^-11 |A| |B| (typically 2^-11 |A| |B| / sqrt(d)); rows closer than that may change places, and which of equal rows
stands at the k-th place is FAISS's choice. The exact search has neither limit.

Memory: 2 bytes x n_checkpoints x d_sketch an example while building; a saved index is mapped, not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from gradstore.errors import IndexFileError, IndexNotFoundError, QueryError
from gradstore.search.checks import NOTHING, check_k, check_queries, excluded_rows
from gradstore.search.index import IndexCard, card_path, replace_file
from gradstore.search.neighbours import Neighbours
from gradstore.search.rows import QuerySketches, StoredRows, all_norms, block_rows_within
from gradstore.search.weights import Normalise, check_normalise, inverse, root_self_influence

KIND = "faiss-flat"
_LARGEST = 2.0**10

Form = Literal["none", "cosine"]


def stored_form(normalise: Normalise) -> Form:
    """Which index serves a reading: cosine and relatif differ by a factor of the query alone, so share one."""
    check_normalise(normalise)
    return "none" if normalise == "none" else "cosine"


class FaissFlat:
    """A flat inner-product index over a store's rows; see the module."""

    def __init__(self, index: Any, rows: StoredRows, normalise: Normalise, scale: float) -> None:
        self._index, self._rows, self._scale = index, rows, scale
        self.normalise = normalise

    @classmethod
    def build(cls, rows: StoredRows, normalise: Normalise = "none") -> FaissFlat:
        import faiss

        form = stored_form(normalise)
        dimension = rows.n_checkpoints * rows.d_sketch
        index = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        weights = _stored_weights(all_norms(rows), rows.learning_rates, form)
        scale = _power_of_two_below(_LARGEST / (float(weights.max(initial=0.0)) or 1.0))
        for vectors in _weighted_blocks(rows, weights * scale):
            index.add(vectors)
        return cls(index, rows, normalise, scale)

    def search(
        self,
        queries: QuerySketches,
        k: int,
        *,
        largest: bool = True,
        normalise: Normalise | None = None,
        exclude: Sequence[int] | None = None,
    ) -> Neighbours:
        reading = self._reading(normalise)
        check_queries(self._rows, queries)
        excluded = excluded_rows(exclude, len(queries))
        hides = bool((excluded >= 0).any())
        check_k(k, self._rows.n_examples, excluding=hides)
        sign = 1.0 if largest else -1.0
        scores, indices = self._index.search(_directions(queries, self._rows.learning_rates) * sign, k + hides)
        scores, indices = _without(excluded, scores, indices) if hides else (scores, indices)
        factor = _query_factor(queries, self._rows.learning_rates, reading) / self._scale
        return _ordered(indices, scores * sign * factor[:, None], largest)

    def _reading(self, normalise: Normalise | None) -> Normalise:
        reading = self.normalise if normalise is None else normalise
        if stored_form(reading) != stored_form(self.normalise):
            raise QueryError(
                f"This index of {self._rows.path} was built for normalise={self.normalise}; it cannot answer "
                f"normalise={reading}. Run: gradstore index {self._rows.path} --normalise {reading}"
            )
        return reading

    def save(self, path: Path) -> None:
        import faiss

        def write(temporary: Path) -> None:
            faiss.write_index(self._index, str(temporary))
            card_path(path).unlink(missing_ok=True)  # no card, no index: a kill from here on leaves no mixture

        replace_file(path, write)
        n_bytes = path.stat().st_size
        card = IndexCard.of(self._rows, kind=KIND, normalise=self.normalise, scale=self._scale, n_bytes=n_bytes)
        card.write(path)

    @classmethod
    def load(cls, path: Path, rows: StoredRows) -> FaissFlat:
        import faiss

        card = IndexCard.read(path, rows, kind=KIND)
        _check_size(path, card, rows)
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise IndexFileError(f"FAISS cannot read {path}: {error}. Run: gradstore index {rows.path}") from error
        return cls(index, rows, card.normalise, card.scale)


def _check_size(path: Path, card: IndexCard, rows: StoredRows) -> None:
    """Before FAISS maps the file: reading a mapped page that is not there kills the process."""
    if not path.exists():
        raise IndexNotFoundError(f"{path} is gone; only its card is there. Run: gradstore index {rows.path}")
    found = path.stat().st_size
    if found != card.n_bytes:
        raise IndexFileError(
            f"{path} has {found} bytes; {card.n_bytes} were written. It is damaged. Run: gradstore index {rows.path}"
        )


def _power_of_two_below(value: float) -> float:
    return 2.0 ** math.floor(math.log2(value))


def _stored_weights(
    norms: Float32[np.ndarray, "checkpoint row"], learning_rates: Float64[np.ndarray, " checkpoint"], form: Form
) -> Float64[np.ndarray, "checkpoint row"]:
    """sqrt(eta_t) n_t(x), divided by the root self-influence for the cosine form."""
    weights = np.sqrt(learning_rates)[:, None] * norms.astype(np.float64)
    return np.asarray(weights if form == "none" else weights * inverse(root_self_influence(norms, learning_rates)))


def _weighted_blocks(
    rows: StoredRows, weights: Float64[np.ndarray, "checkpoint example"]
) -> Iterator[Float32[np.ndarray, "row d"]]:
    for start, stop in rows.blocks(block_rows_within(4 * rows.n_checkpoints * rows.d_sketch)):
        units = (rows.unit_sketches(t, start, stop) for t in range(rows.n_checkpoints))
        yield _weighted(units, weights[:, start:stop])


def _weighted(
    units: Iterable[Float[np.ndarray, "row d_sketch"]], weights: Float64[np.ndarray, "checkpoint row"]
) -> Float32[np.ndarray, "row d"]:
    """Checkpoints side by side; a row without a gradient is zero, whatever the store holds for it."""
    factors = weights.astype(np.float32)[..., None]
    parts = [np.where(factor > 0, unit * factor, np.float32(0)) for unit, factor in zip(units, factors, strict=True)]
    return np.concatenate(parts, axis=1)


def _directions(
    queries: QuerySketches, learning_rates: Float64[np.ndarray, " checkpoint"]
) -> Float32[np.ndarray, "query d"]:
    """A(q) divided by the root self-influence: gradients of any size fit into float32."""
    return _weighted(queries.unit, _stored_weights(queries.norms, learning_rates, "cosine"))


def _query_factor(
    queries: QuerySketches, learning_rates: Float64[np.ndarray, " checkpoint"], reading: Normalise
) -> Float64[np.ndarray, " query"]:
    """What `_directions` divided by, where the reading wants it back."""
    return np.ones(len(queries)) if reading == "cosine" else root_self_influence(queries.norms, learning_rates)


def _without(
    excluded: Int64[np.ndarray, " query"],
    scores: Float32[np.ndarray, "query found"],
    indices: Int64[np.ndarray, "query found"],
) -> tuple[Float32[np.ndarray, "query k"], Int64[np.ndarray, "query k"]]:
    """One column fewer: the excluded row's, or the last where it was not found."""
    drop = np.where(excluded == NOTHING, False, (indices == excluded[:, None]).any(axis=1))
    column = np.where(drop, (indices == excluded[:, None]).argmax(axis=1), indices.shape[1] - 1)
    keep = np.arange(indices.shape[1]) != column[:, None]
    return scores[keep].reshape(len(scores), -1), indices[keep].reshape(len(indices), -1)


def _ordered(
    indices: Int64[np.ndarray, "query k"], scores: Float64[np.ndarray, "query k"], largest: bool
) -> Neighbours:
    """Best first, the lower row first among equals: FAISS orders equal scores by its heap."""
    scores = scores.astype(np.float32) + np.float32(0)
    order = np.lexsort((indices, -scores if largest else scores), axis=1)
    return Neighbours(np.take_along_axis(indices, order, 1), np.take_along_axis(scores, order, 1))
