"""What each kind does to series, tables and tokens, and what a near copy is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gradstore.errors import QueryError
from gradstore.evaluation.planting import plant

Examples = NDArray[Any]
FLOAT = np.float32


def normal(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(5.0, 2.0, shape).astype(np.float32)


def before_and_after(examples: Examples, kind: str, n: int = 10, seed: int = 1) -> tuple[Examples, Examples]:
    planted, mask = plant(examples, kind, n, seed)
    return examples[mask], planted[mask]


def test_inverted_floats_keep_the_range_of_the_data() -> None:
    images = normal(30, 1, 4, 4)
    before, after = before_and_after(images, "inverted")
    np.testing.assert_allclose(after, images.min() + images.max() - before, rtol=1e-5)


def test_noise_of_floats_spans_the_data_evenly() -> None:
    images = normal(30, 1, 20, 20)
    _, after = before_and_after(images, "noise")
    low, high = float(images.min()), float(images.max())
    counts, _ = np.histogram(after, 4, (low, high))
    assert counts.sum() == after.size == 4000
    assert (np.abs(counts - 1000) < 5 * np.sqrt(750)).all()  # five standard deviations of a binomial


def test_dead_rows_of_floats_hold_the_lowest_value() -> None:
    images = normal(30, 1, 9, 6)
    _, after = before_and_after(images, "dead_rows")
    assert ((after == images.min()).all(axis=3).sum(axis=2) == 3).all()


@pytest.mark.parametrize("shape", [(400, 6), (400, 3, 2)])
def test_shuffled_keeps_each_place_and_breaks_what_goes_together(shape: tuple[int, ...]) -> None:
    examples = np.repeat(normal(shape[0]), 6).reshape(shape) * np.arange(1, 7, dtype=FLOAT).reshape(shape[1:])
    _, after = before_and_after(examples, "shuffled", 400)
    flat, spoilt = examples.reshape(400, 6), after.reshape(400, 6)
    for place in range(6):
        assert set(spoilt[:, place]) <= set(flat[:, place])
        assert abs(spoilt[:, place].mean() - flat[:, place].mean()) < 5 * flat[:, place].std() / np.sqrt(400)
    np.testing.assert_allclose(np.corrcoef(flat.T), 1.0, atol=1e-4)
    assert np.abs(np.corrcoef(spoilt.T) - np.eye(6)).max() < 5 / np.sqrt(400)  # independent: sd 1/sqrt(N)


def test_scaled_is_three_times_as_far_from_the_mean() -> None:
    examples = normal(50, 7)
    before, after = before_and_after(examples, "scaled")
    mean = examples.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(after, mean + 3 * (before - mean), rtol=1e-5)


def test_scaled_bytes_are_rounded_and_end_at_0_and_255() -> None:
    examples = np.array([[0, 100], [200, 101], [100, 102]], dtype=np.uint8)  # mean 100 and 101
    planted, mask = plant(examples, "scaled", 3, seed=0)
    assert mask.all()
    assert planted.tolist() == [[0, 98], [255, 101], [100, 104]]


@pytest.mark.parametrize(("d", "n_spikes"), [(3, 1), (20, 1), (21, 2), (60, 3)])
def test_spiked_is_one_feature_in_twenty_at_ten_standard_deviations(d: int, n_spikes: int) -> None:
    examples = normal(50, d)
    before, after = before_and_after(examples, "spiked", 50)
    assert ((after != before).sum(axis=1) == n_spikes).all()
    distance = (after - examples.mean(axis=0)) / examples.std(axis=0)
    spikes = distance[after != before]
    np.testing.assert_allclose(np.abs(spikes), 10.0, rtol=1e-3)
    assert {-1.0, 1.0} == set(np.sign(spikes))


def test_what_never_varies_is_never_spiked() -> None:
    examples = normal(50, 4)
    examples[:, :3] = 1.0
    before, after = before_and_after(examples, "spiked", 50)
    np.testing.assert_array_equal(after[:, :3], before[:, :3])


def test_reversed_runs_backwards_and_keeps_channels() -> None:
    before, after = before_and_after(normal(30, 8, 2), "reversed")
    np.testing.assert_array_equal(after, before[:, ::-1])
    before, after = before_and_after(normal(30, 8), "reversed")  # one channel
    np.testing.assert_array_equal(after, before[:, ::-1])


def test_permuted_series_have_one_order_of_steps() -> None:
    before, after = before_and_after(normal(30, 8, 2), "permuted")
    order = [int(np.flatnonzero((before[0] == step).all(axis=1))[0]) for step in after[0]]
    assert sorted(order) == list(range(8))
    np.testing.assert_array_equal(after, before[:, order])


@given(st.integers(0, 1000))
def test_two_places_are_always_swapped(seed: int) -> None:
    before, after = before_and_after(normal(5, 2), "permuted", 3, seed)
    np.testing.assert_array_equal(after, before[:, ::-1])


@pytest.mark.parametrize(("steps", "stuck"), [(2, 2), (5, 2), (9, 3), (30, 10)])
def test_dead_steps_stand_still_for_a_third_of_the_time(steps: int, stuck: int) -> None:
    before, after = before_and_after(normal(30, steps, 2), "dead_steps")
    for series, dead in zip(before, after, strict=True):
        still = np.flatnonzero((np.diff(dead, axis=0) == 0).all(axis=1))
        assert np.array_equal(still, np.arange(still[0], still[0] + stuck - 1))
        changed = np.arange(still[0] + 1, still[0] + stuck)
        np.testing.assert_array_equal(np.delete(dead, changed, axis=0), np.delete(series, changed, axis=0))


def texts(n: int = 30, length: int = 12, padding: int = 4, seed: int = 0) -> NDArray[np.int64]:
    """Tokens 10 to 59, then zeros."""
    tokens = np.random.default_rng(seed).integers(10, 60, (n, length))
    return np.concatenate([tokens, np.zeros((n, padding), np.int64)], axis=1)


@pytest.mark.parametrize("kind", ["shuffled_tokens", "noise", "repeated", "duplicates"])
@pytest.mark.parametrize("in_front", [False, True])
def test_padding_stays_where_it_is(kind: str, in_front: bool) -> None:
    examples = texts()[:, ::-1] if in_front else texts()
    _, after = before_and_after(examples, kind, 30)
    padding, text = (after[:, :4], after[:, 4:]) if in_front else (after[:, 12:], after[:, :12])
    assert (padding == 0).all()
    assert (text != 0).mean() > 0.9  # only noise and a typing error may bring a zero into a text


def test_shuffled_tokens_are_the_same_tokens() -> None:
    before, after = before_and_after(texts(), "shuffled_tokens")
    np.testing.assert_array_equal(np.sort(after), np.sort(before))


def test_noise_of_tokens_is_what_the_data_hold_each_as_likely() -> None:
    examples = np.random.default_rng(0).integers(90, 100, (500, 22))
    examples[:, ::2] = 3  # half of all, in the data
    _, after = before_and_after(examples, "noise", 500)
    tokens, counts = np.unique(after, return_counts=True)
    assert tokens.tolist() == [3, *range(90, 100)]
    assert (np.abs(counts - 1000) < 5 * np.sqrt(1000)).all()  # five standard deviations of a binomial


def test_repeated_is_one_token_for_a_third_of_the_text() -> None:
    before, after = before_and_after(np.arange(30 * 12).reshape(30, 12), "repeated")
    for text, dull in zip(before, after, strict=True):
        tokens, counts = np.unique(dull, return_counts=True)
        assert sorted(counts) == [*[1] * 8, 4]
        start = int(np.flatnonzero(text == tokens[counts.argmax()])[0])
        assert (dull[start : start + 4] == text[start]).all()


DATA: dict[str, Examples] = {
    "bytes": np.random.default_rng(0).integers(0, 256, (40, 1, 16, 16), dtype=np.uint8),
    "floats": normal(40, 300),
    "series": normal(40, 50, 3),
    "whole numbers": np.random.default_rng(0).integers(0, 4096, (40, 1, 8, 8)),
    "tokens": np.random.default_rng(0).integers(0, 900, (40, 200)),
}


@pytest.mark.parametrize("data", DATA)
def test_duplicates_come_in_pairs_that_hardly_differ_and_both_are_marked(data: str) -> None:
    examples = DATA[data]
    planted, mask = plant(examples, "duplicates", 10, seed=0)
    replaced = np.flatnonzero((planted != examples).reshape(40, -1).any(axis=1))
    sources = set()
    for row in replaced:
        same = (planted == planted[row]).reshape(40, -1).mean(axis=1)
        nearest = int(np.argsort(same)[-2])
        assert 0.97 < same[nearest] < 1.0  # one value in a hundred, at least one
        assert nearest not in replaced
        sources.add(nearest)
    assert len(replaced) == len(sources) == 5
    assert set(np.flatnonzero(mask)) == set(replaced) | sources


def test_a_copy_is_one_step_of_a_byte_or_little_of_a_float_away() -> None:
    for data, largest in (("bytes", 1), ("whole numbers", 1), ("floats", 0.011 * 2.5), ("series", 0.011 * 2.5)):
        planted, mask = plant(DATA[data], "duplicates", 2, seed=0)
        one, other = planted[mask].astype(np.float64)
        assert 0 < np.abs(one - other).max() <= largest


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float32])
def test_a_copy_stays_within_the_range_of_the_data(dtype: type) -> None:
    ends = np.random.default_rng(0).integers(0, 2, (40, 1, 5, 5)) * 255
    examples: Examples = ends.astype(dtype)
    planted, mask = plant(examples, "duplicates", 40, seed=0)
    assert mask.all()
    assert planted.min() == 0
    assert planted.max() == 255


def test_a_copy_differs_in_what_varies() -> None:
    examples = np.zeros((20, 50), FLOAT)
    examples[:, 7] = np.arange(20)
    planted, mask = plant(examples, "duplicates", 20, seed=0)
    assert mask.all()
    assert not planted[:, :7].any()
    assert not planted[:, 8:].any()


def test_large_floats_are_copied_with_a_difference_that_they_can_hold() -> None:
    examples = (1e9 + np.random.default_rng(0).integers(0, 2, (20, 4)) * 64).astype(FLOAT)  # 64 is one step at 1e9
    before, after = before_and_after(examples, "duplicates", 2)
    assert len(before) == 2
    assert (after[0] != after[1]).sum() == 1


@pytest.mark.parametrize(("n", "marked"), [(0, 0), (1, 2), (2, 2), (5, 4), (40, 40)])
def test_an_odd_number_of_duplicates_is_rounded_down_but_one_pair_there_is(n: int, marked: int) -> None:
    assert plant(DATA["floats"], "duplicates", n, seed=0)[1].sum() == marked


def test_one_example_cannot_be_there_twice() -> None:
    with pytest.raises(QueryError, match="'duplicates' changes only 0 of 1 examples; 1 were to be planted"):
        plant(normal(1, 5), "duplicates", 1, seed=0)
