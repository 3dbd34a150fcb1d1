"""Exact search: one pass over the store, block by block, the same answer whatever the blocks, batch or device.

A reading (`weights`), in the metric of a preconditioner or not, becomes one vector a query and one weight an example;
blocks of rows (`blocks`) pass the scan once, whatever the number of queries, and the best k stay. How the answer is
exact although most of it is computed in float32: `question`. The scan: `scan`, compiled for a CPU (`scan_compiled`),
in torch for a GPU or where numba is missing (`scan_torch`).

Memory: 64 MiB of blocks and scores, the exact norms (4 bytes an example and checkpoint), a filter's byte an example;
a query takes 8 bytes a coordinate and 16 bytes a neighbour. No part of the store is held.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict, Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from gradstore.errors import QueryError
from gradstore.search.blocks import Weigh, one_ahead, read_blocks
from gradstore.search.checks import check_k_within, check_queries
from gradstore.search.filters import Exclude, Filter, excluded_lists
from gradstore.search.index import IndexCard
from gradstore.search.neighbours import Neighbours
from gradstore.search.precondition import Preconditioner
from gradstore.search.question import Asked, Question, Reduce
from gradstore.search.rows import QuerySketches, SketchRows, StoredRows, all_norms
from gradstore.search.scan import Hidden, Scan
from gradstore.search.scan_compiled import CompiledScan, is_usable
from gradstore.search.scan_torch import TorchScan
from gradstore.search.searchable import Coverage, Searchable
from gradstore.search.weights import Normalise, check_normalise, example_weights, query_weights

_BLOCK_BYTES = 1 << 26  # float16 rows of all checkpoints that are looked at together, on a CPU
_DEVICE_BYTES = 1 << 28  # scores, and rows, of a block on a GPU


class ExactOptions(TypedDict, total=False):
    """What is compared with what, and where; by default raw influence with every row, on the CPU."""

    normalise: Normalise
    """see `gradstore.search.weights`"""
    preconditioner: Preconditioner | None
    """compare in its metric; made at the same checkpoints (`gradstore.search.precondition`)"""
    checkpoints: Sequence[int] | None
    """sum over these checkpoints; negative numbers count from the end"""
    filter: Filter | None
    """the rows that may be found"""
    exclude: Exclude | None
    """one row a query that it may not find, such as itself, -1 for none; or a list of rows a query"""
    reduce: Reduce | None
    """`mean`: one answer to all queries, by their mean score; it finds no row that any of them excludes"""
    require_complete: bool
    """refuse an unfinished store instead of searching the rows that are done (`Searchable.coverage` says how many)"""
    block_rows: int | None
    """rows a block; the answer does not depend on it"""
    device: torch.device | str


def exact_search(
    rows: SketchRows, queries: QuerySketches, k: int, *, largest: bool = True, **options: Unpack[ExactOptions]
) -> Neighbours:
    """The k rows with the highest scores (proponents), or the lowest (opponents), of every query.

    Args:
        rows: the store.
        queries: sketched with the store's own model, checkpoints and projection.
        largest: True for proponents, False for opponents (lowest score first).
        options: see `ExactOptions`.

    Raises:
        QueryError: k that the store cannot answer, an unknown reading, reduction or checkpoint.
        ShapeError: queries that do not fit the store.
        StoreIncompleteError: no row is done, or not all and `require_complete`.
        StoreCorruptError: gradient norms that are not finite numbers.
    """
    return _scan(rows, queries, k, (1 if largest else -1,), options)[0]


def exact_both_ends(
    rows: SketchRows, queries: QuerySketches, k: int, **options: Unpack[ExactOptions]
) -> tuple[Neighbours, Neighbours]:
    """(proponents, opponents) in one pass; the same as two calls of `exact_search`."""
    proponents, opponents = _scan(rows, queries, k, (1, -1), options)
    return proponents, opponents


class ExactIndex:
    """The exact search as an index: nothing to build, and the store itself is the data."""

    def __init__(self, rows: StoredRows, normalise: Normalise = "none", device: torch.device | str = "cpu") -> None:
        check_normalise(normalise)
        self._rows, self.normalise, self._device = rows, normalise, device

    @classmethod
    def build(cls, rows: StoredRows, normalise: Normalise = "none") -> ExactIndex:
        return cls(rows, normalise)

    def search(
        self,
        queries: QuerySketches,
        k: int,
        *,
        largest: bool = True,
        normalise: Normalise | None = None,
        exclude: Sequence[int] | None = None,
    ) -> Neighbours:
        reading = self.normalise if normalise is None else normalise
        return exact_search(
            self._rows, queries, k, largest=largest, normalise=reading, exclude=exclude, device=self._device
        )

    def coverage(self, checkpoints: Sequence[int] | None = None) -> Coverage:
        """How much of the store a search would be from, now."""
        return Searchable.of(self._rows, checkpoints).coverage

    def save(self, path: Path) -> None:
        IndexCard.of(self._rows, kind="exact", normalise=self.normalise).write(path)

    @classmethod
    def load(cls, path: Path, rows: StoredRows) -> ExactIndex:
        return cls(rows, IndexCard.read(path, rows, kind="exact").normalise)


def _scan(
    rows: SketchRows, queries: QuerySketches, k: int, signs: tuple[int, ...], options: ExactOptions
) -> list[Neighbours]:
    """One pass; a result for each sign, in order."""
    searchable, queries = _chosen(rows, queries, options)
    normalise, preconditioner = options.get("normalise", "none"), options.get("preconditioner")
    check_normalise(normalise)
    reduce, device = options.get("reduce"), options.get("device", "cpu")
    excluded = excluded_lists(options.get("exclude"), len(queries))
    excluded = excluded if reduce is None else [np.unique(np.concatenate([np.empty(0, np.int64), *excluded]))]
    allowed = _allowed(searchable, options.get("filter"))
    _check_k(k, searchable, allowed, excluded, options.get("filter"))
    question = Question(Asked.of(*_asked(queries, searchable, normalise, preconditioner), reduce), device)
    hidden = Hidden(excluded, searchable.n_examples, device)
    scan = _scanner(question, k, signs, hidden, device)
    if len(question):
        weigh = _weigher(searchable, normalise, preconditioner)
        size = options.get("block_rows") or _block_rows(searchable, len(question), device)
        blocks = read_blocks(searchable, weigh, allowed, size)
        scan.run(one_ahead(blocks) if _reads_ahead(device) else blocks)
    return [scan.best[sign].neighbours(sign) for sign in signs]


def _chosen(rows: SketchRows, queries: QuerySketches, options: ExactOptions) -> tuple[Searchable, QuerySketches]:
    """Store and queries at the checkpoints that are asked for."""
    checkpoints = options.get("checkpoints")
    check_queries(rows, queries)
    searchable = Searchable.of(rows, checkpoints, require_complete=options.get("require_complete", False))
    preconditioner = options.get("preconditioner")
    if preconditioner is not None and preconditioner.checkpoints != searchable.checkpoints:
        raise QueryError(
            f"The preconditioner was made at checkpoints {', '.join(map(str, preconditioner.checkpoints))}; the search "
            f"asks for {', '.join(map(str, searchable.checkpoints))}. Use Preconditioner.fit(store, checkpoints=...)."
        )
    if checkpoints is None:
        return searchable, queries
    return searchable, queries.at([range(rows.n_checkpoints)[t] for t in checkpoints])


def _asked(
    queries: QuerySketches, rows: Searchable, normalise: Normalise, preconditioner: Preconditioner | None
) -> tuple[QuerySketches, Float64[np.ndarray, "checkpoint query"]]:
    """Directions and a_t(q)."""
    if preconditioner is None:
        return queries, query_weights(queries.norms, rows.learning_rates, normalise)
    solved = preconditioner.apply(queries)
    roots = preconditioner.query_roots(queries) if normalise == "cosine" else None
    return solved, query_weights(solved.norms, rows.learning_rates, normalise, roots)


def _weigher(rows: Searchable, normalise: Normalise, preconditioner: Preconditioner | None) -> Weigh:
    """b_t(x) of any range of rows."""
    norms, rates = all_norms(rows), rows.learning_rates
    roots = None if preconditioner is None or normalise == "none" else preconditioner.example_roots()

    def weigh(of: slice) -> Float64[np.ndarray, "checkpoint row"]:
        return example_weights(norms[:, of], rates, normalise, None if roots is None else roots[of])

    return weigh


def _scanner(question: Question, k: int, signs: tuple[int, ...], hidden: Hidden, device: torch.device | str) -> Scan:
    if torch.device(device).type == "cpu" and is_usable():
        return CompiledScan(question, k, signs, hidden)
    return TorchScan(question, k, signs, hidden, device)


def _block_rows(rows: Searchable, n_queries: int, device: torch.device | str) -> int:
    """Blocks of a bounded size; smaller ones where scores or float32 rows of a whole block are held."""
    numbers = rows.n_checkpoints * rows.d_sketch
    if torch.device(device).type == "cpu" and is_usable():
        return max(64, _BLOCK_BYTES // (2 * numbers))
    budget = _BLOCK_BYTES if torch.device(device).type == "cpu" else _DEVICE_BYTES
    return max(64, min(budget // (4 * numbers), budget // (8 * n_queries)))


def _reads_ahead(device: torch.device | str) -> bool:
    """One thread alone gains nothing from a reader beside it."""
    return torch.device(device).type != "cpu" or torch.get_num_threads() > 1


def _allowed(rows: Searchable, filter: Filter | None) -> Bool[np.ndarray, " example"] | None:
    """Rows that are done and pass; None where all are and do."""
    if filter is None:
        return None
    if len(filter.allowed) != rows.n_examples:
        raise QueryError(
            f"The filter is for {len(filter.allowed)} examples; the store has {rows.n_examples}. Make it of this store."
        )
    return np.asarray(filter.allowed & rows.done())


def _check_k(
    k: int,
    rows: Searchable,
    allowed: Bool[np.ndarray, " example"] | None,
    excluded: list[Int64[np.ndarray, " row"]],
    filter: Filter | None,
) -> None:
    """Refuse a k that some query cannot have; says what made its rows so few."""
    left = rows.coverage.n_searched if allowed is None else int(allowed.sum())
    hidden = max((_n_hidden(rows, allowed, own) for own in excluded), default=0)
    other = "other " if hidden else ""
    if filter is not None:
        what = f"the {left - hidden} {other}examples that {filter.what} leaves"
    elif not rows.coverage.is_complete:
        what = f"the {left - hidden} {other}examples that are done so far"
    else:
        what = f"the store's {left - hidden} {other}examples"
    check_k_within(k, left - hidden, what)


def _n_hidden(
    rows: Searchable, allowed: Bool[np.ndarray, " example"] | None, excluded: Int64[np.ndarray, " row"]
) -> int:
    """How many of these rows could otherwise be found."""
    inside = excluded[(excluded >= 0) & (excluded < rows.n_examples)]
    if allowed is not None:
        return int(allowed[inside].sum())
    return sum(int(((inside >= start) & (inside < stop)).sum()) for start, stop in rows.spans) if inside.size else 0
