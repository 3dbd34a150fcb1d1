"""How much an approximate index finds of what the exact search finds: measured, never promised.

Rows of the store itself are the queries, each barred from finding itself. Half of them choose how hard the index
looks (`effort`), the other half, which had no part in that, measure. A row counts as found when the exact search's k-th
score is reached: of rows that tie for the k-th place any will do. Both ends are measured, for the rows that oppose a
query lie elsewhere than its proponents.

Queries that are not of the store may fare worse: they are not rows that the index has seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Int64

from gradstore.search.exact import exact_both_ends
from gradstore.search.faiss_kinds import EFFORTS
from gradstore.search.neighbours import Neighbours
from gradstore.search.rows import QuerySketches, StoredRows, stored_queries
from gradstore.search.vectors import Form

DEPTHS = (10, 100)
ENOUGH = 0.995
"""Where looking harder stops."""
_QUERIES = 64
_SEED = 1

Recall = dict[str, float]
"""`proponents@10`, `proponents@100`, `opponents@10`, `opponents@100` -> 0 to 1; fewer where the store is smaller."""


class Searcher(Protocol):
    """An index whose effort can be set."""

    effort: int

    def search(
        self, queries: QuerySketches, k: int, *, largest: bool, normalise: Form, exclude: list[int]
    ) -> Neighbours: ...


@dataclass(frozen=True, eq=False)
class _Sample:
    """Queries and their exact answers."""

    form: Form
    rows: Int64[np.ndarray, " query"]
    queries: QuerySketches
    ends: tuple[Neighbours, Neighbours]

    def halves(self) -> Iterator[_Sample]:
        for half in (slice(0, None, 2), slice(1, None, 2)):
            queries = QuerySketches(self.queries.unit[:, half], self.queries.norms[:, half])
            proponents, opponents = (Neighbours(end.indices[half], end.scores[half]) for end in self.ends)
            yield _Sample(self.form, self.rows[half], queries, (proponents, opponents))


def tune_and_measure(index: Searcher, rows: StoredRows, form: Form) -> Recall:
    """Set the smallest effort that finds enough, and return what is found with it; nothing for a store of one row."""
    if rows.n_examples < 2:
        return {}
    choosing, measuring = _sample(rows, form).halves()
    for effort in EFFORTS:
        index.effort = effort
        if min(_recall(index, choosing).values()) >= ENOUGH:
            break
    return _recall(index, measuring)


def _sample(rows: StoredRows, form: Form) -> _Sample:
    n_queries = max(2, min(_QUERIES, rows.n_examples))
    chosen = np.random.default_rng(_SEED).choice(rows.n_examples, n_queries, replace=False, shuffle=False)
    queries = stored_queries(rows, chosen)
    k = min(max(DEPTHS), rows.n_examples - 1)
    return _Sample(form, chosen, queries, exact_both_ends(rows, queries, k, normalise=form, exclude=chosen.tolist()))


def _recall(index: Searcher, sample: _Sample) -> Recall:
    """Each number of neighbours is asked for by itself: how far an index looks depends on it."""
    found_of: Recall = {}
    most = sample.ends[0].scores.shape[1]
    for name, sign, truth in zip(("proponents", "opponents"), (1, -1), sample.ends, strict=True):
        for k in sorted({min(depth, most) for depth in DEPTHS}):
            exclude = sample.rows.tolist()
            found = index.search(sample.queries, k, largest=sign > 0, normalise=sample.form, exclude=exclude)
            reached = sign * found.scores >= sign * truth.scores[:, k - 1 : k]
            found_of[f"{name}@{k}"] = float(reached.mean())
    return found_of


def worst(recall: Recall) -> float:
    """The lowest that was measured; 1 where there was nothing to measure."""
    return min(recall.values(), default=1.0)


def in_words(recall: Recall) -> str:
    """For a person.

    >>> in_words({"proponents@10": 1.0, "proponents@100": 0.9987, "opponents@10": 1.0, "opponents@100": 0.995})
    'recall of the best 10: 1.000 proponents, 1.000 opponents; of the best 100: .999 proponents, .995 opponents'
    """
    depths = sorted({int(name.partition("@")[2]) for name in recall})
    ends = [(depth, *(recall[f"{end}@{depth}"] for end in ("proponents", "opponents"))) for depth in depths]
    parts = [f"of the best {depth}: {_rate(up)} proponents, {_rate(down)} opponents" for depth, up, down in ends]
    return f"recall {'; '.join(parts)}" if parts else "recall not measured: too few examples"


def _rate(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")
