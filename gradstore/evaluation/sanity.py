"""Sanity checks of a store that need no planted errors: what influence must say of examples that are known.

Each is asked of a sample of examples, by the exact search: it streams the store once a reading, and holds no matrix of
all pairs. Beside each stands what it is in closed form, so that a number can be read without another store's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int, Int64

from gradstore.errors import QueryError
from gradstore.search.exact import exact_both_ends, exact_search
from gradstore.search.filters import Filter, exact_duplicates
from gradstore.search.rows import all_norms, stored_queries
from gradstore.search.searchable import Searchable
from gradstore.search.weights import Normalise
from gradstore.store import Store

SAMPLE = 500


@dataclass(frozen=True)
class OwnProponents:
    """How many examples are their own strongest proponent: no other example lowers their loss as much."""

    dot: float
    """Share of the asked, by TracIn influence. 1 where the gradients of different examples are orthogonal; `chance`
    where all are parallel, for then the longest wins every time. Near 1 of all parameters of a VAE (Kong & Chaudhuri
    2021); near 0 of encoders whose gradients differ more in length than in direction."""
    cosine: float
    """The same by cosine. 1 by construction: whatever is lost is the sketch's error, or a copy's."""
    n_asked: int
    n_searched: int

    cosine_expected: ClassVar[float] = 1.0

    @property
    def chance(self) -> float:
        """What `dot` is of parallel gradients, and either of scores that know nothing."""
        return 1.0 / self.n_searched


def own_proponent_share(
    store: Store,
    checkpoints: Sequence[int] | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
    device: str = "cpu",
) -> OwnProponents:
    """Share of examples that are their own strongest proponent among all that are stored.

    An example whose exact copy comes first is its own proponent too: the two have one score, and one gradient. What is
    forgotten is neither asked nor found; an example without any gradient is not asked.

    Args:
        checkpoints: influence is summed over these; all by default.
        sample: how many examples are asked; all where there are not so many.

    Raises:
        QueryError: a sample below 1, a checkpoint that there is not, or no example with a gradient.
        StoreIncompleteError: nothing is done yet.

    Source: Kong & Chaudhuri 2021 (arXiv:2105.14203), whose first sanity check it is.
    """
    searchable, kept = Searchable.of(store, checkpoints), Filter.kept(store)
    weighs = (all_norms(searchable)[searchable.learning_rates > 0] > 0).any(axis=0)
    rows = _sampled(_allowed(searchable, kept) & weighs, sample, seed)
    if not len(rows):
        raise QueryError(f"No example of '{store.location}' has a gradient at these checkpoints. Ask for others.")
    queries = stored_queries(searchable, rows)
    copies = exact_duplicates(searchable, queries)

    def share(normalise: Normalise) -> float:
        found = exact_search(searchable, queries, 1, normalise=normalise, filter=kept, device=device).indices[:, 0]
        return float(np.mean([best in own for best, own in zip(found.tolist(), copies, strict=True)]))

    return OwnProponents(share("none"), share("cosine"), len(rows), int(_allowed(searchable, kept).sum()))


@dataclass(frozen=True)
class SimilarityRate:
    """How often the examples that influence one most have its label."""

    top: float
    """Of the m strongest proponents, mean over the asked. Above `chance` where influence knows classes."""
    bottom: float
    """Of the m strongest opponents. Below `chance` where influence knows classes."""
    chance: float
    """What both are for random scores, and exactly where m is all other examples: the mean over the asked of the share
    of the others that have its label."""
    m: int
    n_asked: int


def similarity_rate(
    store: Store,
    checkpoints: Sequence[int] | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
    m: int = 10,
    normalise: Normalise = "none",
    device: str = "cpu",
) -> SimilarityRate | None:
    """Share of an example's m strongest proponents, and opponents, that have its own label.

    Labelled examples alone are asked and found, and none finds itself. What is forgotten is not there.

    Args:
        sample: how many examples are asked; all where there are not so many.
        m: of each end; all others where there are not so many.
        normalise: how influence is read, see `gradstore.search.weights`. Of raw influence large gradients are at both
            ends of every list, whatever their label.

    Returns:
        None where fewer than two examples have labels.

    Raises:
        QueryError: a sample or an m below 1, or a checkpoint that there is not.
        StoreIncompleteError: nothing is done yet.

    Source: Crabbé & van der Schaar 2022 (arXiv:2203.01928), its consistency check.
    """
    searchable, labels = Searchable.of(store, checkpoints), store.labels()
    if m < 1:
        raise QueryError(f"m={m} examples at each end say nothing; ask for at least 1.")
    if labels is None:
        return None
    allowed = _allowed(searchable, Filter.kept(store)) & (labels >= 0)
    n_others = int(allowed.sum()) - 1
    rows, m = _sampled(allowed, sample, seed), min(m, n_others)
    if n_others < 1:
        return None
    ends = exact_both_ends(
        searchable,
        stored_queries(searchable, rows),
        m,
        normalise=normalise,
        filter=Filter(allowed, "having a label"),
        exclude=rows.tolist(),
        device=device,
    )
    top, bottom = (_with_label(labels[end.indices], labels[rows]) for end in ends)
    own = np.bincount(labels[allowed])[labels[rows]] - 1
    return SimilarityRate(top, bottom, float(np.mean(own / n_others)), m, len(rows))


def _with_label(found: Int[np.ndarray, "query m"], asked: Int[np.ndarray, " query"]) -> float:
    return float(np.mean(found == asked[:, None]))


def _allowed(searchable: Searchable, kept: Filter | None) -> Bool[np.ndarray, " example"]:
    """Rows that are done and not forgotten."""
    return searchable.done() if kept is None else searchable.done() & kept.allowed


def _sampled(allowed: Bool[np.ndarray, " example"], sample: int, seed: int) -> Int64[np.ndarray, " row"]:
    """So many of these rows, ascending; all where there are fewer."""
    if sample < 1:
        raise QueryError(f"A sample of {sample} examples says nothing; ask for at least 1.")
    return np.sort(np.random.default_rng(seed).permutation(np.flatnonzero(allowed))[:sample])
