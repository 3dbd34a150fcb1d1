"""What an approximate index promises beyond `IndexContract`: inherit `ApproximateIndexContract`.

class TestMyIndex(ApproximateIndexContract):
    index_type = MyIndex

A small store is searched exactly whatever the index, so `IndexContract` says little about one. Here stores are large
enough for the index to be used: it may miss rows, as many as it says, but its scores and order are the exact ones.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from jaxtyping import Float64

from gradstore.errors import IndexFileError
from gradstore.search.exact import exact_search
from gradstore.search.faiss_index import FaissIndex
from gradstore.search.neighbours import Neighbours
from gradstore.search.rows import StoredRows, stored_queries
from gradstore.search.weights import Normalise
from gradstore.testing.index_kit import (
    NORMALISATIONS,
    IndexContract,
    MemoryRows,
    every_score,
    random_queries,
    sorted_rows,
    to_unit,
)
from gradstore.testing.store_kit import store_of

ENDS = pytest.mark.parametrize("largest", [True, False])

_SEARCH_AGAIN = """
import sys
from pathlib import Path
import numpy as np
from gradstore.search import {name}, stored_queries
from gradstore.store import Store
store = Store.open(sys.argv[1])
found = {name}.load(Path(sys.argv[2]), store).search(stored_queries(store, np.array([5, 900])), 10)
np.savez(sys.argv[3], indices=found.indices, scores=found.scores)
"""


def clustered_rows(n_examples: int, *, n_checkpoints: int = 2, d_sketch: int = 32, seed: int = 0) -> MemoryRows:
    """As gradients are: directions in clusters, with a spectrum that falls, and 98 % of norms within a factor of 15."""
    random = np.random.default_rng(seed)
    spectrum = 1.0 / np.sqrt(1.0 + np.arange(d_sketch))
    centres = random.standard_normal((n_checkpoints, 20, d_sketch)) * spectrum
    members = random.integers(0, 20, n_examples)
    noise = random.standard_normal((n_checkpoints, n_examples, d_sketch)) * spectrum
    base = MemoryRows.random(n_examples, n_checkpoints=n_checkpoints, d_sketch=d_sketch, seed=seed)
    return replace(base, units=to_unit(centres[:, members] + noise), exact_norms=base.exact_norms ** np.float32(0.6))


class ApproximateIndexContract(IndexContract):
    """The contract of an index that proposes candidates."""

    index_type: ClassVar[type[FaissIndex]]
    least_recall: ClassVar[float]
    """of the best 10 of 4,000 `clustered_rows`, at both ends and without any effort"""

    def quick(self, rows: StoredRows, normalise: Normalise = "none") -> FaissIndex:
        """One that looks no harder than it must: with more effort, a store of a test's size is searched exactly."""
        index = self.index_type.build(rows, normalise)
        index.effort = 1
        return index

    @ENDS
    @pytest.mark.parametrize("normalise", NORMALISATIONS)
    def test_scores_are_those_of_the_exact_search_to_the_bit(self, normalise: Normalise, largest: bool) -> None:
        rows = clustered_rows(4000)
        queries = random_queries(rows, 3)
        found = self.quick(rows, normalise).search(queries, 10, largest=largest)
        everything = exact_search(rows, queries, 4000, largest=largest, normalise=normalise)
        for got, true in zip(_by_row(found), _by_row(everything), strict=True):
            assert got == {row: true[row] for row in got}
        self._check_order(found, largest=largest)

    @ENDS
    def test_enough_of_float64_brute_force_is_found(self, largest: bool) -> None:
        rows = clustered_rows(4000)
        asked = np.arange(0, 4000, 100)
        queries = stored_queries(rows, asked)
        found = self.quick(rows).search(queries, 10, largest=largest)
        best = sorted_rows(every_score(rows, queries), largest=largest)[:, :10]
        assert _share_found(found, best) >= self.least_recall

    def test_the_recall_it_states_is_about_what_a_count_gives(self) -> None:
        rows = clustered_rows(4000)
        index = self.index_type.build(rows)
        queries = stored_queries(rows, np.arange(0, 4000, 40))
        counted = _share_found(
            index.search(queries, 100), sorted_rows(every_score(rows, queries), largest=True)[:, :100]
        )
        stated = index.recall
        assert set(stated) == {f"{end}@{k}" for end in ("proponents", "opponents") for k in (10, 100)}
        assert abs(stated["proponents@100"] - counted) < 0.1

    def test_cosine_and_relatif_find_the_same_rows_and_state_the_same_recall(self) -> None:
        rows = clustered_rows(4000)
        cosine, relatif = self.index_type.build(rows, "cosine"), self.index_type.build(rows, "relatif")
        assert min(cosine.recall.values()) >= self.least_recall
        assert relatif.recall == pytest.approx(cosine.recall, abs=0.02)

    def test_rows_that_a_query_may_not_find_are_not_found(self) -> None:
        rows = clustered_rows(4000)
        queries = stored_queries(rows, np.array([7, 8]))
        index = self.quick(rows)
        first = index.search(queries, 10).indices
        again = index.search(queries, 10, exclude=[first[0, :3].tolist(), []])
        assert not np.isin(first[0, :3], again.indices[0]).any()
        np.testing.assert_array_equal(again.indices[1], first[1])

    def test_a_query_gets_alone_what_it_gets_in_a_batch_of_a_large_store(self) -> None:
        rows = clustered_rows(4000)
        index, asked = self.quick(rows), np.arange(10)
        batch = index.search(stored_queries(rows, asked), 10, exclude=asked.tolist())
        single = [index.search(stored_queries(rows, asked[i : i + 1]), 10, exclude=[int(i)]).indices[0] for i in asked]
        np.testing.assert_array_equal(batch.indices, np.stack(single))

    def test_copies_of_an_example_stand_in_store_order(self) -> None:
        base = clustered_rows(2000)
        rows = replace(base, units=np.tile(base.units, (1, 2, 1)), exact_norms=np.tile(base.exact_norms, (1, 2)))
        found = self.quick(rows).search(random_queries(rows, 4), 20)
        self._check_order(found, largest=True)
        for got in _by_row(found):
            assert all(got[row] == got[row + 2000] for row in got if row + 2000 in got)

    def test_a_query_without_a_gradient_ties_with_every_row_of_a_large_store(self) -> None:
        rows = clustered_rows(4000)
        queries = random_queries(rows, 2)
        queries.norms[:, 1] = 0
        found = self.quick(rows).search(queries, 10)
        np.testing.assert_array_equal(found.indices[1], np.arange(10))
        assert (found.scores[1] == 0).all()

    def test_an_index_answers_the_same_in_another_process(self, tmp_path: Path) -> None:
        gradients = clustered_rows(3000).units.astype(np.float32)
        store = store_of(tmp_path / "store", gradients, learning_rates=[0.1, 0.05], shard_rows=1000)
        index = self.quick(store)
        index.save(tmp_path / "index")
        script = _SEARCH_AGAIN.format(name=self.index_type.__name__)
        paths = [str(tmp_path / name) for name in ("store", "index", "found.npz")]
        subprocess.run([sys.executable, "-c", script, *paths], check=True)
        here = index.search(stored_queries(store, np.array([5, 900])), 10)
        there = np.load(tmp_path / "found.npz")
        np.testing.assert_array_equal(there["indices"], here.indices)
        np.testing.assert_array_equal(there["scores"], here.scores)

    def test_a_file_with_a_flipped_bit_or_an_end_cut_off_is_refused(self, tmp_path: Path) -> None:
        rows, path = clustered_rows(600), tmp_path / "index"
        self.index_type.build(rows).save(path)
        written = path.read_bytes()
        middle = len(written) // 2
        path.write_bytes(written[:middle] + bytes([written[middle] ^ 1]) + written[middle + 1 :])
        with pytest.raises(IndexFileError, match=r"does not hold the bytes that were written.*gradstore index memory"):
            self.index_type.load(path, rows)
        path.write_bytes(written[:-100])
        with pytest.raises(IndexFileError, match=r"were written\. It is damaged\. Run: gradstore index memory"):
            self.index_type.load(path, rows)


def _by_row(found: Neighbours) -> list[dict[int, float]]:
    """Score by row, a query each."""
    return [
        dict(zip(indices.tolist(), scores.tolist(), strict=True))
        for indices, scores in zip(found.indices, found.scores, strict=True)
    ]


def _share_found(found: Neighbours, best: Float64[np.ndarray, "query k"]) -> float:
    """Counted row by row, without regard to ties."""
    return float(np.mean([np.isin(b, f).mean() for b, f in zip(best, found.indices, strict=True)]))
