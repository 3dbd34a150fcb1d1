"""What became of a data set: two stores held against each other, example by example.

Examples are the same where their ids are. Ranks are taken anew among the examples that both stores have and neither
has forgotten, so that nobody moves because others came or went. A rank says which examples a person looks at first:
hence, beside the correlation of all ranks (Spearman 1904), how much of the top percent is in both.

Memory: ids, labels and scores of both stores, and what joining them takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float64, Int64
from numpy.typing import NDArray
from scipy.stats import rankdata

from gradstore.ranking.cache import cached_signals
from gradstore.ranking.rank import COMBINED, identities, scores_by
from gradstore.ranking.signals import Values
from gradstore.store import Store
from gradstore.store.differences import Difference, differing
from gradstore.store.kept import KeptRows, kept_rows

STATUSES = ("in both", "added", "removed", "forgotten in A", "forgotten in B", "forgotten in both")
_TOP = 0.01
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Store B against store A."""

    table: pa.Table
    """One row an example of either: id, status, label_a, label_b, rank_a, rank_b (1 = most suspicious; among the shared
    alone, null for others), change (rank_a - rank_b: above 0 it is more suspicious in B), score_a, score_b. The largest
    changes first, then the others by status."""
    counts: dict[str, int]
    """of each of `STATUSES`"""
    n_relabelled: int
    """shared examples whose label is another"""
    settings: tuple[Difference, ...]
    """of what determines the stores' bytes; sizes and data among them"""
    spearman: float | None
    """correlation of the shared examples' ranks; None where fewer than two, or where all of a store's scores tie"""
    top_overlap: float | None
    """share of A's top percent that is in B's; None without shared examples"""

    def to_json(self) -> dict[str, Any]:
        """All but the table."""
        return {
            "examples": self.counts,
            "relabelled": self.n_relabelled,
            "settings": [{"name": d.name, "a": d.a, "b": d.b} for d in self.settings],
            "spearman": self.spearman,
            "top_overlap": self.top_overlap,
        }


def compare(a: Store, b: Store, by: str = COMBINED) -> Comparison:
    """Hold store B against store A.

    Args:
        by: the signal that ranks, or `combined`; what it needs is computed unless `signals_for` has been.

    Raises:
        StoreIncompleteError: the build of one has not finished.
        UnknownSignalError: no such signal.
    """
    joined = _side(a, by, "a").join(_side(b, by, "b"), "id", join_type="full outer")
    joined = joined.sort_by([("row_b", "ascending"), ("row_a", "ascending")])  # a join keeps no order
    status = _statuses(joined)
    shared = np.flatnonzero(status == STATUSES.index("in both"))
    scores_a, scores_b = (_numbers(joined, f"score_{side}")[shared] for side in "ab")
    ranks_a, ranks_b = _ranks(scores_a), _ranks(scores_b)
    table = _table(joined, status, shared, ranks_a, ranks_b)
    return Comparison(
        table=table,
        counts={name: int((status == number).sum()) for number, name in enumerate(STATUSES)},
        n_relabelled=_n_relabelled(joined, shared),
        settings=tuple(differing(a.manifest.identity(), b.manifest.identity())),
        spearman=_spearman(scores_a, scores_b),
        top_overlap=_overlap(ranks_a, ranks_b),
    )


def signals_for(store: Store, by: str = COMBINED, progress: Progress | None = None) -> Mapping[str, Values]:
    """What a comparison needs of a store's signals, kept for the next time.

    Args:
        progress: told of rows read so far and in all, where there is something to compute.
    """
    return cached_signals(kept_rows(store), [], by, progress)


def _side(store: Store, by: str, name: str) -> pa.Table:
    """id, label, row and score (NaN for the forgotten) of every example of a store."""
    kept = kept_rows(store)
    scores = np.full(store.n_examples, np.nan)
    scores[kept.rows if isinstance(kept, KeptRows) else slice(None)] = scores_by(signals_for(store, by), by)
    about = identities(store)
    columns = {"id": about["id"], f"label_{name}": about["label"], f"row_{name}": pa.array(np.arange(len(scores)))}
    return pa.table({**columns, f"score_{name}": pa.array(scores)})


def _statuses(joined: pa.Table) -> Int64[np.ndarray, " example"]:
    """The number in `STATUSES` of every row."""
    in_a, in_b = (joined.column(f"row_{side}").is_valid().to_numpy() for side in "ab")
    kept_a, kept_b = (np.isfinite(_numbers(joined, f"score_{side}")) for side in "ab")
    return np.select(
        [kept_a & kept_b, ~in_a, ~in_b, ~kept_a & kept_b, kept_a & ~kept_b],
        [0, 1, 2, 3, 4],
        default=5,
    )


def _numbers(joined: pa.Table, name: str) -> Float64[np.ndarray, " example"]:
    """A column's numbers, NaN where there is none."""
    return np.asarray(joined.column(name).to_numpy(), dtype=np.float64)


def _ranks(scores: Float64[np.ndarray, " shared"]) -> Int64[np.ndarray, " shared"]:
    """1 for the highest score; equal ones in the order of B's rows."""
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks


def _spearman(a: Float64[np.ndarray, " shared"], b: Float64[np.ndarray, " shared"]) -> float | None:
    """Correlation of average ranks."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])


def _overlap(a: Int64[np.ndarray, " shared"], b: Int64[np.ndarray, " shared"]) -> float | None:
    n_top = math.ceil(_TOP * len(a))
    return float(((a <= n_top) & (b <= n_top)).sum() / n_top) if n_top else None


def _n_relabelled(joined: pa.Table, shared: NDArray[np.int64]) -> int:
    a, b = (joined.column(f"label_{side}").take(shared).to_pylist() for side in "ab")
    return sum(mine != theirs for mine, theirs in zip(a, b, strict=True))


def _table(
    joined: pa.Table,
    status: Int64[np.ndarray, " example"],
    shared: Int64[np.ndarray, " shared"],
    ranks_a: Int64[np.ndarray, " shared"],
    ranks_b: Int64[np.ndarray, " shared"],
) -> pa.Table:
    """The largest changes first, more suspicious in B before less, then by status, in order of rows."""
    change = np.zeros(len(status), dtype=np.int64)
    change[shared] = ranks_a - ranks_b
    order = np.lexsort((-change, -np.abs(change), status))
    columns = {
        "id": joined.column("id"),
        "status": pa.array(np.array(STATUSES, dtype=object)[status], pa.string()),
        "label_a": joined.column("label_a"),
        "label_b": joined.column("label_b"),
        "rank_a": _with_nulls(ranks_a, shared, len(status)),
        "rank_b": _with_nulls(ranks_b, shared, len(status)),
        "change": _with_nulls(ranks_a - ranks_b, shared, len(status)),
        "score_a": _finite(joined, "score_a"),
        "score_b": _finite(joined, "score_b"),
    }
    return pa.table(columns).take(order)


def _with_nulls(values: Int64[np.ndarray, " shared"], shared: NDArray[np.int64], length: int) -> pa.Array[Any]:
    """These values at the places of the shared, null elsewhere."""
    whole, missing = np.zeros(length, dtype=np.int64), np.ones(length, dtype=np.bool_)
    whole[shared], missing[shared] = values, False
    return _masked(whole, missing)


def _finite(joined: pa.Table, name: str) -> pa.Array[Any]:
    values = _numbers(joined, name)
    return _masked(values, ~np.isfinite(values))


def _masked(values: NDArray[Any], missing: NDArray[np.bool_]) -> pa.Array[Any]:
    found: pa.Array[Any] = pa.array(values, mask=missing)
    return found
