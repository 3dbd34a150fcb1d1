from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from gradstore.errors import QueryError, ShapeError
from gradstore.ranking import combine
from gradstore.ranking.combine import GROUPED, TAILS, improbability, percent_text, percentile, tail_sum

Pair = NDArray[np.float64]
PAIRS = arrays(np.float64, st.tuples(st.just(2), st.integers(1, 40)), elements=st.integers(-50, 50).map(float))


def combined(pair: Pair) -> NDArray[np.float64]:
    return tail_sum({"loss": pair[0], "leverage": pair[1]})


def brute_force(pair: Pair) -> list[float]:
    """Ranks by counting: those below, and half of those that are equal."""
    n = pair.shape[1]
    ranks = [[np.sum(row < v) + (np.sum(row == v) + 1) / 2 for v in row] for row in pair]
    return [float(-np.log(1 - a / (n + 1)) - np.log(1 - b / (n + 1))) for a, b in zip(*ranks, strict=True)]


@given(PAIRS)
def test_the_tail_sum_is_minus_log_of_one_minus_the_average_rank(pair: Pair) -> None:
    np.testing.assert_allclose(combined(pair), brute_force(pair), rtol=1e-12)


@given(PAIRS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(pair: Pair, random: np.random.RandomState) -> None:
    order = list(range(pair.shape[1]))
    random.shuffle(order)
    np.testing.assert_array_equal(combined(pair[:, order]), combined(pair)[order])


@given(PAIRS)
def test_an_increasing_transform_of_a_signal_does_not_matter(pair: Pair) -> None:
    transformed = np.stack([np.exp(pair[0] / 10.0), 3.0 * pair[1] ** 3 - 7.0])
    np.testing.assert_array_equal(combined(transformed), combined(pair))


def test_equal_values_have_equal_scores() -> None:
    scores = combined(np.zeros((2, 9)))
    np.testing.assert_allclose(scores, 2 * np.log(2.0))


def test_one_extreme_signal_outweighs_two_middling_ones() -> None:
    rng = np.random.default_rng(0)
    pair = rng.uniform(size=(2, 1000))
    pair[:, 0], pair[:, 1] = (2.0, 0.5), (0.9, 0.9)
    assert combined(pair)[0] > combined(pair)[1]


def test_nan_and_infinity_are_refused_by_row() -> None:
    with pytest.raises(QueryError, match=r"'loss' is NaN or infinite for 2 of 4 examples: row 1, row 3"):
        tail_sum({"loss": np.array([0.0, np.nan, 1.0, np.inf])})


def test_signals_of_different_lengths_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"loss \(3,\), leverage \(4,\)"):
        tail_sum({"loss": np.zeros(3), "leverage": np.zeros(4)})


def test_no_signal_cannot_be_combined() -> None:
    with pytest.raises(QueryError, match="at least one signal"):
        tail_sum({})


def test_a_percentile_counts_those_strictly_below() -> None:
    assert percentile(np.array([5.0, 1.0, 5.0, 3.0])).tolist() == [50.0, 0.0, 50.0, 25.0]


@given(st.floats(0.0, 99.9999999))
def test_a_percentile_in_words_is_never_more_than_it_is(percent: float) -> None:
    assert float(percent_text(percent)) <= percent + 1e-5
    assert percent_text(percent) != "100.0"


def of_fifty(**changed: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    return {name: rng.uniform(size=50) for name in TAILS} | {name: np.zeros(50) for name in GROUPED} | changed


def test_without_copies_and_clumps_the_score_is_a_power_mean_of_improbabilities() -> None:
    signals = of_fifty(near_duplicate=np.linspace(0.0, 0.6, 50), clump=np.linspace(0.0, 0.45, 50))
    powers = [improbability(signals[name]) ** 1.5 for name in TAILS]
    expected = np.average(powers, axis=0, weights=[1.0, 0.5, 1.0, 1.0, 1.0]) ** (2 / 3)
    np.testing.assert_allclose(combine.combined(signals), expected, rtol=1e-12)


@pytest.mark.parametrize("name", GROUPED)
def test_a_single_copy_is_above_everyone_however_ordinary_it_is_otherwise(name: str) -> None:
    signals = of_fifty(**{name: np.where(np.arange(50) == 0, 2.0, 0.0)}) | {n: np.ones(50) for n in TAILS}
    assert combine.combined(signals).argmax() == 0


def test_the_more_examples_are_copies_the_less_each_counts() -> None:
    few, many = (np.where(np.arange(50) < n, 5.0, 0.0) for n in (2, 30))
    added = [combine.combined(of_fifty(near_duplicate=v)) - combine.combined(of_fifty()) for v in (few, many)]
    assert added[0][0] > 2 * added[1][0] > 0
    assert added[0][40] == added[1][40] == 0


def test_a_duplicate_signal_that_is_nan_is_refused() -> None:
    with pytest.raises(QueryError, match="'near_duplicate' is NaN or infinite for 1 of 50"):
        combine.combined(of_fifty(near_duplicate=np.where(np.arange(50) == 7, np.nan, 0.0)))


def test_a_value_that_the_bulk_foretells_is_as_improbable_as_it_is_rare() -> None:
    values = np.exp(0.3 * np.random.default_rng(0).normal(size=20_000))
    found, rank = improbability(values), (-values).argsort().argsort() + 0.5
    inside = (rank > 200) & (rank < 10_000)
    np.testing.assert_allclose(found[inside], -np.log(rank[inside] / 20_000), atol=0.35)


def test_values_far_beyond_the_bulk_are_more_improbable_than_their_rank_alone() -> None:
    values = np.random.default_rng(0).normal(size=4_000)
    values[:80] += 12.0
    found = improbability(values)
    assert found[:80].min() > combine.surprise(values).max()
    assert found.max() <= 20.0


@given(arrays(np.float64, st.integers(1, 40), elements=st.integers(-50, 50).map(float)))
def test_a_larger_value_is_never_less_improbable(values: NDArray[np.float64]) -> None:
    found = improbability(values)
    assert np.isfinite(found).all()
    assert (np.diff(found[np.argsort(values)]) >= -1e-12).all()


def test_equal_values_are_equally_improbable() -> None:
    assert len(set(improbability(np.full(9, 3.0)))) == 1


def test_a_weight_counts_a_signal_so_many_times() -> None:
    values = np.array([3.0, 1.0, 2.0])
    weighted = tail_sum({"a": values, "b": -values}, {"a": 2.0, "b": 1.0})
    np.testing.assert_allclose(weighted, tail_sum({"a": values, "again": values, "b": -values}))
