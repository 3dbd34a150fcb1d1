from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaxtyping import Float16

from gradstore.errors import QueryError, ShapeError, StoreCorruptError
from gradstore.search import (
    Neighbours,
    Normalise,
    QuerySketches,
    exact_both_ends,
    exact_search,
    stored_queries,
)
from gradstore.search import exact as exact_module
from gradstore.search.scan_compiled import is_usable
from gradstore.testing.index_kit import NORMALISATIONS, MemoryRows, every_score, random_queries, sorted_rows, to_unit


def assert_same(left: Neighbours, right: Neighbours) -> None:
    np.testing.assert_array_equal(left.indices, right.indices)
    np.testing.assert_array_equal(left.scores, right.scores)


@pytest.fixture(
    autouse=True,
    params=["torch", pytest.param("compiled", marks=pytest.mark.skipif(not is_usable(), reason="no numba"))],
)
def scan(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test holds for both scans."""
    monkeypatch.setattr(exact_module, "is_usable", lambda: request.param == "compiled")


@pytest.mark.parametrize("normalise", NORMALISATIONS)
@pytest.mark.parametrize("block_rows", [7, 64, 299])
def test_blocks_and_shards_of_any_size_give_the_same_bits(block_rows: int, normalise: Normalise) -> None:
    rows = MemoryRows.random(300, d_sketch=96)
    queries = random_queries(rows, 6)
    whole = exact_search(rows, queries, 20, normalise=normalise)
    split = exact_search(replace(rows, shard_rows=130), queries, 20, normalise=normalise, block_rows=block_rows)
    assert_same(whole, split)


def test_a_batch_larger_than_a_group_gives_what_single_queries_give() -> None:
    rows = MemoryRows.random(60, n_checkpoints=1, d_sketch=33)
    queries = random_queries(rows, 300)
    batch = exact_search(rows, queries, 4)
    for i in (0, 255, 256, 299):
        single = exact_search(rows, QuerySketches(queries.unit[:, i : i + 1], queries.norms[:, i : i + 1]), 4)
        assert_same(single, Neighbours(batch.indices[i : i + 1], batch.scores[i : i + 1]))


@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_both_ends_in_one_pass_are_the_two_searches(normalise: Normalise) -> None:
    rows = MemoryRows.random(300)
    queries = stored_queries(rows, np.array([3, 99]))
    proponents, opponents = exact_both_ends(rows, queries, 9, normalise=normalise, exclude=[3, 99], block_rows=50)
    for largest, found in ((True, proponents), (False, opponents)):
        alone = exact_search(rows, queries, 9, largest=largest, normalise=normalise, exclude=[3, 99])
        assert_same(found, alone)


def tie_prone(random: np.random.Generator, *shape: int) -> Float16[np.ndarray, "checkpoint row d_sketch"]:
    """Eighths between -1 and 1: dot products are exact, and often equal."""
    return np.asarray(random.integers(-8, 9, shape) / 8, dtype=np.float16)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 3),
    st.integers(1, 11),
    st.booleans(),
)
def test_ties_go_to_the_lower_row_within_across_blocks_and_at_the_kth_place(
    seed: int, n_checkpoints: int, n_examples: int, d_sketch: int, block_rows: int, largest: bool
) -> None:
    random = np.random.default_rng(seed)
    norms = random.integers(0, 3, (n_checkpoints, n_examples)).astype(np.float32)
    rates = 2.0 ** -np.arange(n_checkpoints)
    rows = MemoryRows(tie_prone(random, n_checkpoints, n_examples, d_sketch), norms, rates)
    asked = tie_prone(random, n_checkpoints, 3, d_sketch).astype(np.float32)
    queries = QuerySketches(asked, np.ones((n_checkpoints, 3), np.float32))
    k = int(random.integers(1, n_examples + 1))
    found = exact_search(rows, queries, k, largest=largest, block_rows=block_rows)
    np.testing.assert_array_equal(found.indices, sorted_rows(every_score(rows, queries), largest=largest)[:, :k])


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_rows_closer_than_float32_can_tell_are_ordered_by_their_true_scores(precision: str) -> None:
    """Dot products of two halves that cancel, and a last coordinate that decides by steps of 2^-33."""
    random = np.random.default_rng(0)
    half, asked = random.standard_normal((400, 256)) / 23, random.standard_normal((1, 256)) / 23
    steps = random.permutation(400)
    units = np.hstack([half, half, steps[:, None] * 2.0**-24]).astype(np.float16)
    rows = MemoryRows(units[None], np.ones((1, 400), np.float32), np.ones(1))
    unit = np.hstack([asked, -asked, [[2.0**-9]]]).astype(np.float32)
    queries = QuerySketches(unit[None], np.ones((1, 1), np.float32))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        found = exact_search(rows, queries, 30, block_rows=60)
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(found.indices[0], np.argsort(-steps)[:30])


@pytest.mark.parametrize("n_queries", [1, 2, 3, 9])
def test_copies_of_a_row_score_the_same_bits_wherever_they_stand(n_queries: int) -> None:
    """A matrix product sums in other orders for other sizes and at its edges."""
    random = np.random.default_rng(0)
    units = np.tile(to_unit(random.standard_normal((1, 1, 999))), (1, 203, 1))
    rows = MemoryRows(units, np.ones((1, 203), np.float32), np.ones(1))
    sketches = random.standard_normal((1, n_queries, 999)) * 10.0 ** -random.integers(0, 7, 999)
    queries = QuerySketches.from_sketches(sketches, np.square(sketches).sum(axis=2))
    for block_rows in (203, 101, 7):
        found = exact_search(rows, queries, 200, block_rows=block_rows)
        np.testing.assert_array_equal(found.indices, np.tile(np.arange(200), (n_queries, 1)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_a_gpu_gives_the_bits_of_the_cpu(normalise: Normalise) -> None:
    rows = MemoryRows.random(5000, d_sketch=256)
    queries = random_queries(rows, 17)
    on_cpu = exact_search(rows, queries, 10, normalise=normalise)
    assert_same(on_cpu, exact_search(rows, queries, 10, normalise=normalise, device="cuda"))


def test_cosine_of_a_row_with_itself_is_one_and_relatif_is_its_root_self_influence() -> None:
    rows = MemoryRows.random(30, d_sketch=64)
    queries = stored_queries(rows, np.arange(30))
    root = np.sqrt(rows.learning_rates @ np.square(rows.exact_norms, dtype=np.float64))
    cosine = exact_search(rows, queries, 1, normalise="cosine")
    relatif = exact_search(rows, queries, 30, normalise="relatif")
    np.testing.assert_array_equal(cosine.indices[:, 0], np.arange(30))
    np.testing.assert_allclose(cosine.scores[:, 0], 1.0, atol=64 * 2**-11)  # float16 rows
    own = relatif.scores[relatif.indices == np.arange(30)[:, None]]
    np.testing.assert_allclose(own, root, rtol=64 * 2**-11)


def test_one_huge_row_tops_every_raw_list_and_no_normalised_one() -> None:
    rows = MemoryRows.random(200)
    rows.exact_norms[:, 7] *= 1e6
    queries = random_queries(rows, 20)
    ends = exact_both_ends(rows, queries, 1)
    assert all(7 in (top, bottom) for top, bottom in zip(*(end.indices[:, 0] for end in ends), strict=True))
    relatif = exact_search(rows, queries, 1, normalise="relatif")
    assert (relatif.indices == 7).mean() < 0.2


def test_no_block_is_larger_than_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, sizes = MemoryRows.random(1000), set()
    read = MemoryRows.unit_sketches

    def recorded(self: MemoryRows, checkpoint: int, start: int, stop: int) -> Float16[np.ndarray, "row d_sketch"]:
        sizes.add(stop - start)
        return read(self, checkpoint, start, stop)

    monkeypatch.setattr(MemoryRows, "unit_sketches", recorded)
    exact_search(rows, random_queries(rows, 2), 3, block_rows=64)
    assert max(sizes) == 64


def only(queries: QuerySketches, query: int) -> QuerySketches:
    return QuerySketches(queries.unit[:, query : query + 1], queries.norms[:, query : query + 1])


@pytest.mark.skipif(not is_usable(), reason="no numba")
@pytest.mark.parametrize("normalise", NORMALISATIONS)
@pytest.mark.parametrize("n_queries", [1, 8, 9, 40])
def test_both_scans_give_the_same_bits(n_queries: int, normalise: Normalise, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few queries and many, with and without a matrix product."""
    rows = MemoryRows.random(3000, n_checkpoints=3, d_sketch=40)
    queries = random_queries(rows, n_queries)
    found = {}
    for compiled in (False, True):
        monkeypatch.setattr(exact_module, "is_usable", lambda compiled=compiled: compiled)
        found[compiled] = exact_both_ends(rows, queries, 30, normalise=normalise)
    for plain, fast in zip(found[False], found[True], strict=True):
        assert_same(plain, fast)


@pytest.mark.parametrize("normalise", NORMALISATIONS)
@pytest.mark.parametrize("checkpoints", [[1], [2, 0], [-1]])
def test_chosen_checkpoints_alone_are_summed_over(checkpoints: list[int], normalise: Normalise) -> None:
    rows = MemoryRows.random(200, n_checkpoints=3)
    queries = random_queries(rows, 4)
    found = exact_search(rows, queries, 200, normalise=normalise, checkpoints=checkpoints)
    alone = replace(
        rows,
        units=rows.units[checkpoints],
        exact_norms=rows.exact_norms[checkpoints],
        learning_rates=rows.learning_rates[checkpoints],
    )
    truth = every_score(alone, QuerySketches(queries.unit[checkpoints], queries.norms[checkpoints]), normalise)
    np.testing.assert_array_equal(found.indices, sorted_rows(truth, largest=True))


@pytest.mark.parametrize("normalise", NORMALISATIONS)
@pytest.mark.parametrize("largest", [True, False])
def test_the_mean_over_queries_ranks_by_the_mean_of_their_scores(normalise: Normalise, largest: bool) -> None:
    rows = MemoryRows.random(300)
    queries = random_queries(rows, 25)
    found = exact_search(rows, queries, 40, largest=largest, normalise=normalise, reduce="mean")
    truth = every_score(rows, queries, normalise).mean(axis=0, keepdims=True)
    np.testing.assert_array_equal(found.indices, sorted_rows(truth, largest=largest)[:, :40])
    np.testing.assert_allclose(found.scores, np.take_along_axis(truth, found.indices, 1), rtol=1e-5)


def test_the_mean_finds_no_row_that_any_query_excludes() -> None:
    rows = MemoryRows.random(30)
    queries = stored_queries(rows, np.array([4, 9]))
    found = exact_search(rows, queries, 28, reduce="mean", exclude=[4, 9])
    assert sorted(found.indices[0]) == [row for row in range(30) if row not in (4, 9)]
    with pytest.raises(QueryError, match="k=29 is larger than the store's 28 other examples"):
        exact_search(rows, queries, 29, reduce="mean", exclude=[4, 9])


def test_a_query_may_exclude_several_rows() -> None:
    rows = MemoryRows.random(50)
    queries = random_queries(rows, 3)
    everything = exact_search(rows, queries, 50).indices
    lists: list[list[int]] = [everything[0, :5].tolist(), [], [everything[2, 1]]]
    found = exact_search(rows, queries, 10, exclude=lists).indices
    np.testing.assert_array_equal(found[0], everything[0, 5:15])
    np.testing.assert_array_equal(found[1], everything[1, :10])
    np.testing.assert_array_equal(found[2], np.delete(everything[2], 1)[:10])


def test_rows_may_arrive_in_any_number_of_equal_copies() -> None:
    """Every score ties with the floor: nothing is ruled out, and the lowest rows win."""
    base = MemoryRows.random(1)
    rows = replace(base, units=np.tile(base.units, (1, 500, 1)), exact_norms=np.tile(base.exact_norms, (1, 500)))
    for found in exact_both_ends(rows, random_queries(rows, 12), 7, block_rows=64):
        np.testing.assert_array_equal(found.indices, np.tile(np.arange(7), (12, 1)))


def test_one_row_of_overwhelming_norm_hides_no_other() -> None:
    rows = MemoryRows.random(400)
    rows.exact_norms[:, 123] = 1e30
    queries = random_queries(rows, 10)
    found = exact_search(rows, queries, 50, block_rows=100)
    np.testing.assert_array_equal(found.indices, sorted_rows(every_score(rows, queries), largest=True)[:, :50])


def test_a_reader_ahead_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = MemoryRows.random(500)
    queries = random_queries(rows, 20)
    alone = exact_search(rows, queries, 9, block_rows=64)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert_same(alone, exact_search(rows, queries, 9, block_rows=64))


def test_no_queries_give_an_empty_answer() -> None:
    rows = MemoryRows.random(9)
    found = exact_search(rows, stored_queries(rows, np.array([], dtype=np.int64)), 3)
    assert (found.indices.shape, found.scores.shape) == ((0, 3), (0, 3))


def test_a_store_with_damaged_norms_is_refused() -> None:
    rows = MemoryRows.random(20)
    rows.exact_norms[1, 4:6] = np.nan
    with pytest.raises(StoreCorruptError, match="2 of 20 examples have a gradient norm that is not a finite number"):
        exact_search(rows, random_queries(rows, 1), 3)


def test_bad_questions_are_refused() -> None:
    rows = MemoryRows.random(20)
    queries = random_queries(rows, 2)
    with pytest.raises(QueryError, match="normalise='l2' is unknown; use one of none, cosine, relatif"):
        exact_search(rows, queries, 3, normalise="l2")  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="The store has checkpoints 0 to 1, not 2"):
        exact_search(rows, queries, 3, checkpoints=[2])
    with pytest.raises(QueryError, match="The store has checkpoints 0 to 1, and none was named"):
        exact_search(rows, queries, 3, checkpoints=[])
    with pytest.raises(QueryError, match="Checkpoints 1, 1 name one twice"):
        exact_search(rows, queries, 3, checkpoints=[1, -1])
    with pytest.raises(QueryError, match="reduce='sum' is unknown"):
        exact_search(rows, queries, 3, reduce="sum")  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="k=-3 is smaller than 1"):
        exact_search(rows, queries, -3)
    with pytest.raises(ShapeError, match="exclude names 1 rows for 2 queries"):
        exact_search(rows, queries, 3, exclude=[1])
    with pytest.raises(ShapeError, match=r"expected \[checkpoint, query, d_sketch\]"):
        QuerySketches(queries.unit, queries.norms[:1])
    with pytest.raises(QueryError, match="NaN or infinity"):
        QuerySketches(queries.unit * np.float32(np.nan), queries.norms)
