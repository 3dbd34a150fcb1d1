from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from gradstore.errors import IndexMismatchError, IndexNotFoundError
from gradstore.search.auto import Asked, Choice, choose
from gradstore.search.faiss_index import FaissIndex
from gradstore.testing.index_kit import MemoryRows

GOOD = {f"{end}@{k}": 0.998 for end in ("proponents", "opponents") for k in (10, 100)}


@dataclass
class Shelf:
    """Indexes that are there: a recall, or the error that opening one raises."""

    there: dict[str, dict[str, float] | Exception] = field(default_factory=dict)

    def load(self, kind: str) -> FaissIndex:
        found = self.there.get(kind, IndexNotFoundError("none"))
        if isinstance(found, Exception):
            raise found
        return cast(FaissIndex, type("Index", (), {"recall": found, "name": kind})())


def rows_of(n_examples: int) -> MemoryRows:
    """Of 2 x 512, without the memory."""
    norms = np.broadcast_to(np.float32(1), (2, n_examples))
    return MemoryRows(np.broadcast_to(np.float16(0), (2, n_examples, 512)), norms, np.ones(2))


BIG = rows_of(10**6)


def chosen(kind: Any, asked: Asked, shelf: Shelf, rows: MemoryRows = BIG) -> Choice:
    index, choice = choose(kind, asked, rows, shelf.load)
    assert (index is None) == (choice.index == "exact") == (choice.recall is None)
    return choice


def test_one_query_to_many_examples_takes_the_rabitq_index_and_tells_its_recall() -> None:
    choice = chosen("auto", Asked(1), Shelf({"rabitq": GOOD, "flat": GOOD}))
    assert choice.index == "rabitq"
    assert "few queries, many examples; recall of the best 10: .998 proponents" in str(choice)


@pytest.mark.parametrize(
    ("asked", "n_examples", "why"),
    [
        (Asked(9), 10**6, "one pass over the store serves all 9 queries"),
        (Asked(1), 30000, "the store is small"),
        (Asked(1, needs_exact="a filter"), 10**6, "a filter is answered exactly"),
        (Asked(1, device="cuda"), 10**6, "cuda reads the store fast enough"),
    ],
)
def test_batches_small_stores_filters_and_gpus_are_searched_exactly(asked: Asked, n_examples: int, why: str) -> None:
    choice = chosen("auto", asked, Shelf({"rabitq": GOOD}), rows_of(n_examples))
    assert str(choice) == f"Searched exactly: {why}."


def test_without_an_index_the_command_that_builds_one_is_named() -> None:
    assert "gradstore index memory --kind rabitq" in chosen("auto", Asked(1), Shelf()).why
    assert "--normalise cosine" in chosen("auto", Asked(1, "relatif"), Shelf()).why


def test_an_index_that_finds_too_little_at_one_end_is_passed_over_and_that_is_said() -> None:
    poor = GOOD | {"opponents@100": 0.97}
    choice = chosen("auto", Asked(1), Shelf({"rabitq": poor}))
    assert (choice.index, "the rabitq index finds too little" in choice.why) == ("exact", True)
    assert ".970 opponents" in choice.why
    assert chosen("auto", Asked(1), Shelf({"rabitq": poor, "hnsw": GOOD})).index == "hnsw"


def test_a_stale_index_is_passed_over_and_that_is_said() -> None:
    stale = IndexMismatchError("index was built from other rows. Run: gradstore index memory")
    assert "was built from other rows" in chosen("auto", Asked(1), Shelf({"rabitq": stale})).why


def test_an_index_asked_for_by_name_answers_or_its_error_is_raised() -> None:
    assert chosen("hnsw", Asked(500), Shelf({"hnsw": GOOD}), rows_of(10)).index == "hnsw"
    assert chosen("exact", Asked(1), Shelf({"rabitq": GOOD})).index == "exact"
    with pytest.raises(IndexNotFoundError):
        chosen("ivf-pq", Asked(1), Shelf())
