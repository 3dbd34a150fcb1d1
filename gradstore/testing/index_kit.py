"""The contract of a search index: inherit `IndexContract` and pytest judges an index against float64 brute force.

class TestMyIndex(IndexContract):
    index_type = MyIndex
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from jaxtyping import Float, Float16, Float32, Float64, Int, Int64

from gradstore.errors import IndexMismatchError, IndexNotFoundError, QueryError, ShapeError
from gradstore.search.index import Index
from gradstore.search.neighbours import Neighbours
from gradstore.search.rows import QuerySketches, stored_queries
from gradstore.search.weights import Normalise

NORMALISATIONS: tuple[Normalise, ...] = ("none", "cosine", "relatif")


@dataclass(frozen=True, eq=False)
class MemoryRows:
    """A store's rows as arrays in memory."""

    units: Float16[np.ndarray, "checkpoint example d_sketch"]
    exact_norms: Float32[np.ndarray, "checkpoint example"]
    learning_rates: Float64[np.ndarray, " checkpoint"]
    points: Float32[np.ndarray, "_ _ d_latent"] = field(default_factory=lambda: np.empty((0, 0, 0), np.float32))
    shard_rows: int = 1 << 30
    location: str = "memory"

    @classmethod
    def random(cls, n_examples: int, *, n_checkpoints: int = 2, d_sketch: int = 16, seed: int = 0) -> MemoryRows:
        """Gaussian directions, log-normal norms, learning rates that differ."""
        random = np.random.default_rng(seed)
        sketches = random.standard_normal((n_checkpoints, n_examples, d_sketch))
        norms = np.exp(random.standard_normal((n_checkpoints, n_examples))).astype(np.float32)
        rates = 0.1 / np.arange(1, n_checkpoints + 1)
        points = random.standard_normal((n_checkpoints, n_examples, 4)).astype(np.float32)
        return cls(to_unit(sketches), norms, rates, points)

    @property
    def n_checkpoints(self) -> int:
        return len(self.exact_norms)

    @property
    def n_examples(self) -> int:
        return int(self.exact_norms.shape[1])

    @property
    def d_sketch(self) -> int:
        return int(self.units.shape[2])

    def blocks(self, rows: int = 4096) -> Iterator[tuple[int, int]]:
        for shard in range(0, self.n_examples, self.shard_rows):
            end = min(shard + self.shard_rows, self.n_examples)
            yield from ((start, min(start + rows, end)) for start in range(shard, end, rows))

    def unit_sketches(self, checkpoint: int, start: int, stop: int) -> Float16[np.ndarray, "row d_sketch"]:
        return self.units[checkpoint, start:stop].copy()

    def sketch_rows(self, checkpoint: int, indices: Int[np.ndarray, " row"]) -> Float16[np.ndarray, "row d_sketch"]:
        return np.asarray(self.units[checkpoint, indices])

    def norms(self, checkpoint: int) -> Float32[np.ndarray, " example"]:
        return np.asarray(self.exact_norms[checkpoint])

    def latents(self, checkpoint: int, start: int, stop: int) -> Float32[np.ndarray, "row d_latent"]:
        return self.points[checkpoint, start:stop].copy()

    def latent_rows(self, checkpoint: int, indices: Int[np.ndarray, " row"]) -> Float32[np.ndarray, "row d_latent"]:
        return np.asarray(self.points[checkpoint, indices])

    def content_fingerprint(self) -> str:
        return hashlib.blake2b(self.units.tobytes() + self.exact_norms.tobytes()).hexdigest()


def to_unit(sketches: Float[np.ndarray, "... d_sketch"]) -> Float16[np.ndarray, "... d_sketch"]:
    """Rows of length 1 in the store's precision."""
    return np.asarray(sketches / np.linalg.norm(sketches, axis=-1, keepdims=True), dtype=np.float16)


def random_queries(rows: MemoryRows, n_queries: int, seed: int = 1) -> QuerySketches:
    """Queries that fit `rows`."""
    shape = (rows.n_checkpoints, n_queries, rows.d_sketch)
    sketches = np.random.default_rng(seed).standard_normal(shape)
    return QuerySketches.from_sketches(sketches, np.square(sketches).sum(axis=2))


def every_score(
    rows: MemoryRows, queries: QuerySketches, normalise: Normalise = "none"
) -> Float64[np.ndarray, "query example"]:
    """All scores by the definition, in float64: the oracle."""
    asked = queries.unit * queries.norms[..., None].astype(np.float64)
    examples = rows.units * rows.exact_norms[..., None].astype(np.float64)
    scores = np.einsum("c,cqd,ced->qe", rows.learning_rates, asked, examples)
    if normalise != "none":
        scores /= _length(rows.exact_norms, rows.learning_rates)
    if normalise == "cosine":
        scores /= _length(queries.norms, rows.learning_rates)[:, None]
    return np.asarray(scores)


def _length(
    norms: Float32[np.ndarray, "checkpoint row"], learning_rates: Float64[np.ndarray, " checkpoint"]
) -> Float64[np.ndarray, " row"]:
    """sqrt(sum_t eta_t n_t²), 1 where that is 0."""
    length = np.linalg.norm(np.sqrt(learning_rates)[:, None] * norms.astype(np.float64), axis=0)
    return np.where(length > 0, length, 1.0)


def sorted_rows(scores: Float64[np.ndarray, "query example"], *, largest: bool) -> Int64[np.ndarray, "query example"]:
    """All rows best first; a stable sort leaves equal rows in store order."""
    return np.argsort(-scores if largest else scores, axis=1, kind="stable")


class IndexContract:
    """What every index promises.

    `rounding` is the relative error of a stored row: an index that rounds further than the store may swap rows
    that are closer than that, and need not say which of equal rows is the k-th.
    """

    index_type: ClassVar[type[Index]]
    rounding: ClassVar[float] = 0.0

    def check(
        self, found: Neighbours, rows: MemoryRows, queries: QuerySketches, normalise: Normalise, *, largest: bool
    ) -> None:
        """`found` are the best rows, up to what the index rounds."""
        truth = every_score(rows, queries, normalise)
        tolerance = self._tolerance(rows, queries, normalise)[:, None]
        assert (abs(np.take_along_axis(truth, found.indices, 1) - found.scores) <= tolerance).all()
        self._check_order(found, largest=largest)
        if self.rounding == 0:
            k = found.indices.shape[1]
            np.testing.assert_array_equal(found.indices, sorted_rows(truth, largest=largest)[:, :k])
        self._check_nothing_better_left_out(found, truth, tolerance, largest=largest)

    def _tolerance(
        self, rows: MemoryRows, queries: QuerySketches, normalise: Normalise
    ) -> Float64[np.ndarray, " query"]:
        """Cauchy–Schwarz: rounding rows by `rounding`, and the score to float32, moves no score further."""
        largest = replace(rows, units=np.ones((*rows.exact_norms.shape, 1), np.float16))
        lengths = QuerySketches(np.ones((*queries.norms.shape, 1), np.float32), queries.norms)
        reach = every_score(largest, lengths, normalise).max(axis=1)
        return np.asarray((2 * self.rounding + 2.0**-22) * reach + 1e-30)

    @staticmethod
    def _check_order(found: Neighbours, *, largest: bool) -> None:
        """Best first, lower row first among equals, no row twice."""
        for indices, scores in zip(found.indices, found.scores, strict=True):
            order = np.lexsort((indices, -scores if largest else scores))
            assert (order == np.arange(len(indices))).all()
            assert len(set(indices)) == len(indices)

    @staticmethod
    def _check_nothing_better_left_out(
        found: Neighbours,
        truth: Float64[np.ndarray, "query example"],
        tolerance: Float64[np.ndarray, "query 1"],
        *,
        largest: bool,
    ) -> None:
        k = found.indices.shape[1]
        best = np.take_along_axis(truth, sorted_rows(truth, largest=largest)[:, :k], 1)
        assert (abs(best - found.scores) <= 2 * tolerance).all()

    @pytest.mark.parametrize("largest", [True, False])
    @pytest.mark.parametrize("normalise", NORMALISATIONS)
    def test_search_agrees_with_a_float64_matmul_and_sort(self, normalise: Normalise, largest: bool) -> None:
        rows = MemoryRows.random(300)
        queries = random_queries(rows, 5)
        found = self.index_type.build(rows, normalise).search(queries, 10, largest=largest)
        assert (found.indices.dtype.name, found.scores.dtype.name) == ("int64", "float32")
        self.check(found, rows, queries, normalise, largest=largest)

    def test_opponents_are_the_bottom_of_the_same_list(self) -> None:
        rows = MemoryRows.random(50)
        queries = random_queries(rows, 3)
        index = self.index_type.build(rows)
        everything = index.search(queries, 50)
        opponents = index.search(queries, 7, largest=False)
        np.testing.assert_array_equal(opponents.indices, everything.indices[:, ::-1][:, :7])
        np.testing.assert_array_equal(opponents.scores, everything.scores[:, ::-1][:, :7])

    @pytest.mark.parametrize("n_examples", [1, 2, 17])
    def test_k_may_be_all_examples(self, n_examples: int) -> None:
        rows = MemoryRows.random(n_examples)
        queries = random_queries(rows, 2)
        found = self.index_type.build(rows).search(queries, n_examples)
        self.check(found, rows, queries, "none", largest=True)

    def test_one_query_gives_what_a_batch_gives(self) -> None:
        rows = MemoryRows.random(200)
        indices = np.arange(9)
        index = self.index_type.build(rows)
        batch = index.search(stored_queries(rows, indices), 5)
        single = [index.search(stored_queries(rows, indices[i : i + 1]), 5).indices[0] for i in indices]
        np.testing.assert_array_equal(batch.indices, np.stack(single))

    @pytest.mark.parametrize("largest", [True, False])
    def test_duplicates_score_alike_and_stand_in_store_order(self, largest: bool) -> None:
        base = MemoryRows.random(20)
        rows = replace(base, units=np.tile(base.units, (1, 3, 1)), exact_norms=np.tile(base.exact_norms, (1, 3)))
        queries = random_queries(rows, 4)
        found = self.index_type.build(rows).search(queries, 30, largest=largest)
        self.check(found, rows, queries, "none", largest=largest)
        triples = found.indices.reshape(4, 10, 3)
        np.testing.assert_array_equal(triples, triples[..., :1] + np.array([0, 20, 40]))

    @pytest.mark.parametrize("normalise", NORMALISATIONS)
    def test_a_row_without_a_gradient_scores_zero(self, normalise: Normalise) -> None:
        rows = MemoryRows.random(30)
        rows.exact_norms[:, 3] = 0
        rows.units[:, 3] = np.nan
        clean = replace(rows, units=np.nan_to_num(rows.units))
        queries = random_queries(rows, 4)
        found = self.index_type.build(rows, normalise).search(queries, 30)
        assert (found.scores[found.indices == 3] == 0).all()
        self.check(found, clean, queries, normalise, largest=True)

    @pytest.mark.parametrize("normalise", NORMALISATIONS)
    def test_a_query_without_a_gradient_scores_zero_everywhere(self, normalise: Normalise) -> None:
        rows = MemoryRows.random(30)
        queries = QuerySketches(np.zeros((2, 1, 16), np.float32), np.zeros((2, 1), np.float32))
        found = self.index_type.build(rows, normalise).search(queries, 30)
        np.testing.assert_array_equal(found.scores, 0)
        np.testing.assert_array_equal(found.indices, [np.arange(30)])

    @pytest.mark.parametrize("size", [1e-18, 1e-6, 1e6, 1e18])
    def test_gradients_of_any_size_are_ordered(self, size: float) -> None:
        rows = MemoryRows.random(100)
        rows = replace(rows, exact_norms=rows.exact_norms * np.float32(size))
        queries = random_queries(rows, 3)
        found = self.index_type.build(rows).search(queries, 8)
        self.check(found, rows, queries, "none", largest=True)

    def test_an_excluded_row_is_not_found(self) -> None:
        rows = MemoryRows.random(40)
        queries = stored_queries(rows, np.array([5, 6, 7]))
        index = self.index_type.build(rows, "cosine")
        everything = index.search(queries, 40).indices
        found = index.search(queries, 39, exclude=[5, -1, 7]).indices
        expected = [everything[0][everything[0] != 5], everything[1][:39], everything[2][everything[2] != 7]]
        np.testing.assert_array_equal(found, expected)

    def test_k_beyond_the_store_is_refused(self) -> None:
        rows = MemoryRows.random(20)
        index, queries = self.index_type.build(rows), random_queries(rows, 1)
        with pytest.raises(QueryError, match="k=50 is larger than the store's 20 examples; ask for at most 20"):
            index.search(queries, 50)
        with pytest.raises(QueryError, match="k=20 is larger than the store's 19 other examples; ask for at most 19"):
            index.search(queries, 20, exclude=[0])
        with pytest.raises(QueryError, match="k=0 is smaller than 1"):
            index.search(queries, 0)

    def test_queries_of_another_projection_are_refused(self) -> None:
        index = self.index_type.build(MemoryRows.random(20))
        queries = random_queries(MemoryRows.random(1, d_sketch=8), 1)
        with pytest.raises(ShapeError, match="2 checkpoints of d_sketch=8; the store has 2 of d_sketch=16"):
            index.search(queries, 1)

    @pytest.mark.parametrize("normalise", NORMALISATIONS)
    def test_a_loaded_index_answers_as_the_saved_one(self, tmp_path: Path, normalise: Normalise) -> None:
        rows = MemoryRows.random(100)
        queries = random_queries(rows, 3)
        index = self.index_type.build(rows, normalise)
        index.save(tmp_path / "index")
        loaded = self.index_type.load(tmp_path / "index", rows)
        np.testing.assert_array_equal(loaded.search(queries, 9).indices, index.search(queries, 9).indices)
        np.testing.assert_array_equal(loaded.search(queries, 9).scores, index.search(queries, 9).scores)

    def test_an_index_of_other_rows_is_refused(self, tmp_path: Path) -> None:
        self.index_type.build(MemoryRows.random(20)).save(tmp_path / "index")
        with pytest.raises(IndexMismatchError, match=r"was built from other rows .* Run: gradstore index memory"):
            self.index_type.load(tmp_path / "index", MemoryRows.random(20, seed=1))

    def test_a_missing_index_says_how_to_make_it(self, tmp_path: Path) -> None:
        with pytest.raises(IndexNotFoundError, match="Run: gradstore index memory"):
            self.index_type.load(tmp_path / "index", MemoryRows.random(20))
