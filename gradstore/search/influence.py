"""Questions about influence as the library and the command line take them: options become one search.

What can be asked at once: which rows may be found, at which checkpoints, read how, in which metric, by each query or by
the mean of all. `auto` (`gradstore.search.auto`) says whether an index or the exact search answers; an index serves raw
and normalised influence over the whole of a finished store, and all else is exact.

Why the store is looked at once (`Searchable`): a build may commit shards meanwhile. Queries, filters, preconditioner
and search then see the same rows, and the answer says how many these are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import numpy as np
from jaxtyping import Int64

from gradstore.errors import QueryError
from gradstore.influence.whitening import DAMPING
from gradstore.search.auto import Asked, Kind, choose
from gradstore.search.exact import ExactOptions, exact_both_ends, exact_search
from gradstore.search.faiss_index import FaissIndex
from gradstore.search.filters import Filter, all_of, exact_duplicates
from gradstore.search.neighbours import Neighbours
from gradstore.search.precondition import Preconditioner
from gradstore.search.question import Reduce
from gradstore.search.rows import QuerySketches
from gradstore.search.searchable import Searchable
from gradstore.search.weights import Normalise
from gradstore.store import Store
from gradstore.store.forgotten import fingerprint_of


class SearchOptions(TypedDict, total=False):
    """How influence is read and searched; by default raw influence of every example, over all checkpoints."""

    normalise: Normalise
    """`none`; `cosine`; or `relatif`, which divides by the training example's own root self-influence, so that
    large gradients do not win every time (Barshan et al. 2020)."""
    preconditioned: bool
    """Compare in leverage's metric: directions that all gradients share count little."""
    damping: float
    """Of the preconditioner, relative to the mean diagonal of the gradients' second moment; 1e-3 by default."""
    checkpoints: Sequence[int] | None
    """Sum over these; negative numbers count from the end. All by default."""
    reduce: Reduce | None
    """`mean`: one answer to all queries together, by their mean score."""
    labels: Sequence[str] | None
    """Find only examples of these classes."""
    among: Sequence[str] | Filter | None
    """Find only these examples: ids, or a Filter."""
    exclude_duplicates: bool
    """Whether exact copies of a query are left out, too."""
    include_self: bool
    """Whether a query given by id may find itself; by default it may not."""
    require_complete: bool
    """Whether an unfinished store is refused; by default what is done is searched."""
    index: Kind
    """`auto`, the default: an index for few queries to many examples where `build_index` made one that is known to
    find enough, else `exact`; or a kind of index by name. `Neighbours.searched` says which it was, and why."""


@dataclass(frozen=True, eq=False)
class AskedQueries:
    """What is asked, at the checkpoints that are searched."""

    sketches: QuerySketches
    rows: Int64[np.ndarray, " query"] | None = None
    """their rows where they are of the store"""


class InfluenceSearch:
    """Searches of one store."""

    def __init__(self, store: Store, load: Callable[[Normalise, str], FaissIndex], device: str) -> None:
        self._store, self._load, self._device = store, load, device
        self._fitted: tuple[object, Preconditioner] | None = None

    def find(
        self, searchable: Searchable, queries: AskedQueries, k: int, ends: Sequence[bool], options: SearchOptions
    ) -> list[Neighbours]:
        """The k best rows of every query, for each end: True for proponents, False for opponents.

        Args:
            searchable: what of the store is searched, see `searchable_of`.

        Raises:
            QueryError, IndexFileError: see `GradientStore.search`.
        """
        self._require_consistent(options)
        normalise = options.get("normalise", "none")
        asked = Asked(len(queries.sketches), normalise, needs_exact(searchable, options), self._device)
        index, choice = choose(
            options.get("index", "auto"), asked, self._store, lambda kind: self._load(normalise, kind)
        )
        exclude = _excluded(searchable, queries, options)
        if index is None:
            found = self._exactly(searchable, queries, k, ends, exclude, options)
        else:
            sketches, kept = queries.sketches, Filter.kept(self._store)
            found = [
                index.search(sketches, k, largest=end, normalise=normalise, exclude=exclude, filter=kept)
                for end in ends
            ]
        return [replace(end, searched=choice, coverage=searchable.coverage) for end in found]

    def _exactly(
        self,
        searchable: Searchable,
        queries: AskedQueries,
        k: int,
        ends: Sequence[bool],
        exclude: list[list[int]] | None,
        options: SearchOptions,
    ) -> list[Neighbours]:
        """Both ends in one pass."""
        exact: ExactOptions = {
            "normalise": options.get("normalise", "none"),
            "preconditioner": self._preconditioner(searchable, options),
            "filter": _filter(self._store, options),
            "exclude": exclude,
            "reduce": options.get("reduce"),
            "device": self._device,
        }
        if len(ends) == 1:
            return [exact_search(searchable, queries.sketches, k, largest=ends[0], **exact)]
        proponents, opponents = exact_both_ends(searchable, queries.sketches, k, **exact)
        return [proponents if end else opponents for end in ends]

    def _preconditioner(self, searchable: Searchable, options: SearchOptions) -> Preconditioner | None:
        """The last one is kept: fitting it reads the whole store."""
        if not options.get("preconditioned"):
            return None
        damping = options.get("damping", DAMPING)
        forgotten, kept = self._store.forgotten(), Filter.kept(self._store)
        without = None if forgotten is None else fingerprint_of(forgotten)
        key = (self._store.content_fingerprint(), without, searchable.checkpoints, searchable.spans, damping)
        if self._fitted is None or self._fitted[0] != key:
            self._fitted = (key, Preconditioner.fit(searchable, damping=damping, filter=kept))
        return self._fitted[1]

    @staticmethod
    def _require_consistent(options: SearchOptions) -> None:
        if "damping" in options and not options.get("preconditioned"):
            raise QueryError(
                f"damping={options['damping']:g} is the preconditioner's, and none is asked for. "
                "Ask for preconditioned scores, or leave damping out."
            )


def searchable_of(store: Store, options: SearchOptions) -> Searchable:
    """What of the store is searched now.

    Raises:
        QueryError: a checkpoint that the store has not.
        StoreIncompleteError: nothing is done yet, or not all and all is required.
    """
    required = options.get("require_complete", False)
    return Searchable.of(store, options.get("checkpoints"), require_complete=required)


def needs_exact(searchable: Searchable, options: SearchOptions) -> str | None:
    """What of a question no index can answer, in words; None where one can."""
    reasons = {
        "an unfinished store": not searchable.coverage.is_complete,
        "a choice of checkpoints": len(searchable.checkpoints) < searchable.rows.n_checkpoints,
        "a search among some of the examples": options.get("labels") is not None or options.get("among") is not None,
        "the mean over the queries": options.get("reduce") is not None,
        "a preconditioned score": bool(options.get("preconditioned")),
    }
    return next((words for words, holds in reasons.items() if holds), None)


def _filter(store: Store, options: SearchOptions) -> Filter | None:
    """Those of the classes that are also among the ids, and not forgotten."""
    labels, among = options.get("labels"), options.get("among")
    of_labels = None if labels is None else Filter.of_labels(store, labels)
    of_ids = among if among is None or isinstance(among, Filter) else Filter.of_ids(store, among)
    return all_of(of_labels, of_ids, Filter.kept(store))


def _excluded(searchable: Searchable, queries: AskedQueries, options: SearchOptions) -> list[list[int]] | None:
    """The rows that each query may not find: itself, its copies."""
    rows, n_queries = queries.rows, len(queries.sketches)
    own: list[list[int]] = [[] for _ in range(n_queries)] if rows is None else [[row] for row in rows.tolist()]
    with_self = options.get("include_self", False)
    if not options.get("exclude_duplicates"):
        return None if with_self or rows is None else own
    copies = [found.tolist() for found in exact_duplicates(searchable, queries.sketches)]
    if with_self:
        return [[row for row in found if row not in mine] for found, mine in zip(copies, own, strict=True)]
    return [[*found, *mine] for found, mine in zip(copies, own, strict=True)]
