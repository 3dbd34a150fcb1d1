"""FAISS indexes over a store's rows: they propose candidates, and the store itself settles scores and order.

Every score is what the exact search gives, to the bit (`gradstore.search.rerank`); what an index may miss is a row,
and how often it does is measured when it is built and kept in its card (`gradstore.search.recall`). The exact search
answers in its place whatever it cannot: more than half of the rows asked for, a query without a gradient (every row
ties), too few candidates in the cells that were looked at.

Rows that tie in an index, such as many copies of one example, are proposed in an order of FAISS's choosing; beyond
`depth` copies, which of them are returned is not the lowest rows first. Building a graph (hnsw) with several threads
gives another graph each time, and so other rows missed; the other kinds are built alike whatever the threads.

Memory: a saved index is mapped where FAISS can, and read otherwise; 4 bytes an example and checkpoint for norms.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from jaxtyping import Float32, Int64

from gradstore.errors import IndexFileError, QueryError
from gradstore.search.checks import check_k_within, check_queries
from gradstore.search.exact import ExactOptions, exact_search
from gradstore.search.faiss_build import DEFAULT_MEMORY, build_faiss
from gradstore.search.faiss_gpu import MOST_NEIGHBOURS, on_gpu
from gradstore.search.faiss_kinds import KINDS, Kind, import_faiss
from gradstore.search.filters import Exclude, Filter, excluded_lists
from gradstore.search.index import IndexCard, build_again, card_path, replace_file
from gradstore.search.neighbours import Neighbours
from gradstore.search.recall import Recall, tune_and_measure
from gradstore.search.rerank import rerank
from gradstore.search.rows import QuerySketches, StoredRows, all_norms
from gradstore.search.scattered import ScatteredRows
from gradstore.search.vectors import Vectors, stored_form
from gradstore.search.weights import Normalise
from gradstore.store.commits import FileHash


class FaissIndex:
    """An index of one `kind`; see the module."""

    kind: ClassVar[Kind]

    def __init__(
        self,
        index: Any,
        vectors: Vectors,
        rows: StoredRows,
        norms: Float32[np.ndarray, "checkpoint example"],
        normalise: Normalise,
    ) -> None:
        self._index, self._vectors, self._rows, self._norms = index, vectors, rows, norms
        self._scattered = ScatteredRows(rows)
        self.normalise = normalise
        self.recall: Recall = {}
        """measured when it was built"""
        self.is_on_gpu = False
        self.effort = 1

    @property
    def effort(self) -> int:
        """How hard it looks: 1, 2, 4 or 8."""
        return self._effort

    @effort.setter
    def effort(self, effort: int) -> None:
        self._effort = effort
        self.kind.set_effort(self._index, effort)

    @classmethod
    def build(cls, rows: StoredRows, normalise: Normalise = "none", *, memory: int = DEFAULT_MEMORY) -> Self:
        """Read all rows once, then measure what it finds.

        Raises:
            QueryError: it would take more than `memory` bytes to build; says which kinds would not.
            MissingExtraError: FAISS is not installed.
        """
        norms, form = all_norms(rows), stored_form(normalise)
        vectors = Vectors.of(rows, norms, cls.kind.layout, form)
        made = cls(build_faiss(cls.kind, vectors, rows, norms, memory), vectors, rows, norms, normalise)
        made.recall = tune_and_measure(made, rows, form)
        return made

    def search(
        self,
        queries: QuerySketches,
        k: int,
        *,
        largest: bool = True,
        normalise: Normalise | None = None,
        exclude: Exclude | None = None,
        filter: Filter | None = None,
    ) -> Neighbours:
        """See `Index.search`.

        Args:
            filter: the rows that may be found, where these are most: as many more candidates are looked at as it takes.
        """
        reading = self._reading(normalise)
        check_queries(self._rows, queries)
        excluded = excluded_lists(exclude, len(queries))
        exact: ExactOptions = {"normalise": reading, "filter": filter, "exclude": _as_lists(excluded)}
        n_allowed = self._rows.n_examples if filter is None else int(filter.allowed.sum())
        self._check_k(k, n_allowed, excluded, filter)
        depth = self._depth(k, n_allowed)
        if depth is None or len(queries) == 0:
            return exact_search(self._rows, queries, k, largest=largest, **exact)
        found, complete = rerank(
            self._scattered,
            queries,
            self._candidates(queries, depth, largest=largest),
            k,
            norms=self._norms,
            learning_rates=self._rows.learning_rates,
            largest=largest,
            normalise=reading,
            excluded=excluded,
            filter=filter,
        )
        lost = np.flatnonzero(~complete | ~queries.norms.any(axis=0))
        exact["exclude"] = _as_lists([excluded[query] for query in lost])
        return self._searched_exactly(found, lost, queries, largest, exact) if lost.size else found

    def _candidates(self, queries: QuerySketches, depth: int, *, largest: bool) -> Int64[np.ndarray, "query candidate"]:
        vectors = self._vectors.queries(queries)
        _, indices = self._index.search(vectors if largest else -vectors, depth)
        return np.asarray(indices)

    def _depth(self, k: int, n_allowed: int) -> int | None:
        """How many candidates to score again; None where the exact search is as cheap, or FAISS cannot give so many.

        It depends on nothing else, so that a query gets the same answer alone and in any batch.
        """
        depth = -(-self.kind.depth(k, self.effort) * self._rows.n_examples // n_allowed)
        if self.is_on_gpu:
            depth = max(min(depth, MOST_NEIGHBOURS), k)
        if 2 * depth > self._rows.n_examples or (self.is_on_gpu and depth > MOST_NEIGHBOURS):
            return None
        return depth

    def _searched_exactly(
        self,
        found: Neighbours,
        lost: Int64[np.ndarray, " lost"],
        queries: QuerySketches,
        largest: bool,
        options: ExactOptions,
    ) -> Neighbours:
        """`found` with these queries answered exactly."""
        asked = QuerySketches(queries.unit[:, lost], queries.norms[:, lost])
        k = found.indices.shape[1]
        exact = exact_search(self._rows, asked, k, largest=largest, **options)
        found.indices[lost], found.scores[lost] = exact.indices, exact.scores
        return found

    def _check_k(
        self, k: int, n_allowed: int, excluded: list[Int64[np.ndarray, " row"]], filter: Filter | None
    ) -> None:
        allowed = (rows if filter is None else rows[filter.allowed[rows]] for rows in excluded)
        hidden = max(map(len, allowed), default=0)
        left, other = n_allowed - hidden, "other " if hidden else ""
        whole = f"the store's {left} {other}examples"
        what = whole if filter is None else f"the {left} {other}examples that {filter.what} leaves"
        check_k_within(k, left, what)

    def _reading(self, normalise: Normalise | None) -> Normalise:
        reading = self.normalise if normalise is None else normalise
        if stored_form(reading) != stored_form(self.normalise):
            raise QueryError(
                f"This {self.kind.name} index of {self._rows.location} was built for normalise={self.normalise}; it "
                f"cannot answer normalise={reading}. {build_again(self._rows, self.kind.name, reading)}"
            )
        return reading

    def save(self, path: Path) -> None:
        faiss = import_faiss()

        def write(temporary: Path) -> None:
            faiss.write_index(self._index, str(temporary))
            card_path(path).unlink(missing_ok=True)  # no card, no index: a kill from here on leaves no mixture

        replace_file(path, write)
        IndexCard.of(
            self._rows,
            kind=self.kind.name,
            normalise=self.normalise,
            scale=self._vectors.scale,
            effort=self.effort,
            recall=self.recall,
            n_bytes=path.stat().st_size,
            sha256=FileHash.read(path).sha256,
        ).write(path)

    @classmethod
    def load(cls, path: Path, rows: StoredRows, device: str = "cpu") -> Self:
        """Open what `save` wrote; on a CUDA device where this FAISS is built for it."""
        card = IndexCard.read(path, rows, kind=cls.kind.name)
        card.check_file(path, rows)
        faiss = import_faiss()
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            advice = build_again(rows, card.kind, card.normalise)
            raise IndexFileError(f"FAISS cannot read {path}: {error}. {advice}") from error
        norms = all_norms(rows)
        form = stored_form(card.normalise)
        vectors = Vectors(cls.kind.layout, form, tuple(rows.learning_rates.tolist()), rows.d_sketch, card.scale)
        made = cls(index, vectors, rows, norms, card.normalise)
        made.effort, made.recall = card.effort, card.recall
        made._move_to(device)
        return made

    def _move_to(self, device: str) -> None:
        """To a GPU if it can be; the effort is then settled."""
        moved = on_gpu(import_faiss(), self._index, self.kind.name, device) if device.startswith("cuda") else None
        if moved is not None:
            self._index, self.is_on_gpu = moved, True


def _as_lists(excluded: list[Int64[np.ndarray, " row"]]) -> list[list[int]]:
    return [rows.tolist() for rows in excluded]


class FaissFlat(FaissIndex):
    """Every row as it is, in float16."""

    kind = KINDS["flat"]


class FaissRaBitQ(FaissIndex):
    """One bit a coordinate: the one for single questions to many rows."""

    kind = KINDS["rabitq"]


class FaissIvfSq8(FaissIndex):
    """Cells of rows, 8 bits a coordinate."""

    kind = KINDS["ivf-sq8"]


class FaissIvfPq(FaissIndex):
    """Cells of rows, a byte for eight coordinates."""

    kind = KINDS["ivf-pq"]


class FaissHnsw(FaissIndex):
    """A graph of near rows."""

    kind = KINDS["hnsw"]


INDEX_TYPES: dict[str, type[FaissIndex]] = {
    made.kind.name: made for made in (FaissFlat, FaissRaBitQ, FaissIvfSq8, FaissIvfPq, FaissHnsw)
}
