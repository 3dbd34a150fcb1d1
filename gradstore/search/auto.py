"""Which search answers a question, and why: `auto` is exact unless an index is known to be as good and much faster.

- Filters, and whatever else needs it: exact. An index has no room for "of these rows only", and candidates that are
  filtered afterwards may be too few.
- More than 8 queries: exact. One pass over the store serves them all, where an index looks for each by itself.
- Less than 64 MB of sketches: exact, within 10 ms.
- Else an index whose measured recall is at least .99 at both ends, of the best 10 and of the best 100; RaBitQ first. At
  1 million examples of 512, one query, one thread (`tests/benchmarks/search_indexes.py`): 10 times faster than the
  exact search, 11 times faster than FAISS's `IndexFlatIP`, recall .999.
- None of that: exact, and the answer says how to make it faster, or what is wrong with the index that is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gradstore.errors import IndexFileError, IndexNotFoundError, MissingExtraError
from gradstore.search.faiss_index import FaissIndex
from gradstore.search.index import build_again
from gradstore.search.recall import Recall, in_words, worst
from gradstore.search.rows import StoredRows
from gradstore.search.vectors import stored_form
from gradstore.search.weights import Normalise

Kind = Literal["auto", "exact", "flat", "rabitq", "ivf-sq8", "ivf-pq", "hnsw"]

GOOD_ENOUGH = 0.99
_FEW_QUERIES = 8
_SMALL_BYTES = 1 << 26
_PREFERENCE = ("rabitq", "hnsw", "ivf-sq8", "ivf-pq", "flat")


@dataclass(frozen=True)
class Asked:
    """What of a question decides which search answers it."""

    n_queries: int
    normalise: Normalise = "none"
    needs_exact: str | None = None
    """in words, what only the exact search can do, such as `a filter`"""
    device: str = "cpu"


@dataclass(frozen=True)
class Choice:
    """The search that answers, why, and what it is known to find of the exact answer."""

    index: str
    why: str
    recall: Recall | None = None
    """None where the search is exact"""

    def __str__(self) -> str:
        """One line for a person.

        >>> print(Choice("exact", "the store is small"))
        Searched exactly: the store is small.
        """
        if self.recall is None:
            return f"Searched exactly: {self.why}."
        return f"Searched the {self.index} index: {self.why}; {in_words(self.recall)}. Scores are exact."

    def to_json(self) -> dict[str, Any]:
        """For the head of an answer."""
        return asdict(self)


def choose(
    kind: Kind, asked: Asked, rows: StoredRows, load: Callable[[str], FaissIndex]
) -> tuple[FaissIndex | None, Choice]:
    """The index that answers, None for the exact search.

    Args:
        kind: what the user wants.
        rows: the store.
        load: opens the index of a kind that serves the question's reading.

    Raises:
        IndexFileError: a kind was asked for by name and cannot be used.
    """
    if kind == "exact":
        return None, Choice("exact", "as asked")
    if asked.needs_exact is not None:
        return None, Choice("exact", f"{asked.needs_exact} is answered exactly")
    if kind != "auto":
        index = load(kind)
        return index, Choice(kind, "as asked", index.recall)
    reason = _reason_for_exact(asked, rows)
    return _best_index(asked, rows, load) if reason is None else (None, Choice("exact", reason))


def _reason_for_exact(asked: Asked, rows: StoredRows) -> str | None:
    """What makes an index pointless, before any is looked for."""
    if asked.n_queries > _FEW_QUERIES:
        return f"one pass over the store serves all {asked.n_queries} queries"
    if 2 * rows.n_examples * rows.n_checkpoints * rows.d_sketch < _SMALL_BYTES:
        return "the store is small"
    if asked.device != "cpu":
        return f"{asked.device} reads the store fast enough"
    return None


def _best_index(asked: Asked, rows: StoredRows, load: Callable[[str], FaissIndex]) -> tuple[FaissIndex | None, Choice]:
    problems = []
    for kind in _PREFERENCE:
        try:
            index = load(kind)
        except IndexNotFoundError:
            continue
        except (IndexFileError, MissingExtraError) as error:
            problems.append(str(error).rstrip("."))
            continue
        if worst(index.recall) >= GOOD_ENOUGH:
            return index, Choice(kind, "few queries, many examples", index.recall)
        problems.append(f"the {kind} index finds too little ({in_words(index.recall)})")
    return None, Choice("exact", problems[0] if problems else _hint(asked, rows))


def _hint(asked: Asked, rows: StoredRows) -> str:
    how = build_again(rows, "rabitq", stored_form(asked.normalise))
    return f"there is no index, which makes single questions to a million examples 10 times faster. {how}"
