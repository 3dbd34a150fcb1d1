from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gradstore.errors import QueryError, ShapeError
from gradstore.evaluation.detection import (
    detection_curve,
    found_in_first,
    mean_detection,
    mean_detection_from_auc,
    roc_auc,
)

Scores = NDArray[np.float64]
Mask = NDArray[np.bool_]


@st.composite
def judged(draw: st.DrawFn, largest: int = 5) -> tuple[Scores, Mask]:
    """Scores with many ties, and a mask with at least one of each."""
    n = draw(st.integers(2, 60))
    scores = draw(st.lists(st.integers(0, largest), min_size=n, max_size=n))
    planted = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    planted[0], planted[-1] = True, False
    return np.array(scores, dtype=np.float64), np.array(planted)


def counted_curve(scores: Scores, planted: Mask) -> list[float]:
    """For distinct scores: sort, then count."""
    found = [planted[i] for i in sorted(range(len(scores)), key=lambda i: -scores[i])]
    return [sum(found[:k]) / sum(found) for k in range(1, len(found) + 1)]


@given(judged())
def test_the_mean_of_the_curve_follows_from_the_auc(case: tuple[Scores, Mask]) -> None:
    scores, planted = case
    expected = mean_detection_from_auc(roc_auc(scores, planted), int(planted.sum()), len(planted))
    assert mean_detection(scores, planted) == pytest.approx(expected, abs=1e-12)


@given(judged(), st.permutations(range(60)))
def test_the_curve_of_distinct_scores_is_sorting_and_counting(case: tuple[Scores, Mask], order: list[int]) -> None:
    planted = case[1]
    scores = np.array([float(i) for i in order if i < len(planted)])
    np.testing.assert_allclose(detection_curve(scores, planted), counted_curve(scores, planted), atol=1e-12)


@given(judged(), st.randoms(use_true_random=False))
def test_the_curve_ignores_the_order_of_rows(case: tuple[Scores, Mask], random: np.random.RandomState) -> None:
    scores, planted = case
    order = list(range(len(scores)))
    random.shuffle(order)
    np.testing.assert_array_equal(detection_curve(scores[order], planted[order]), detection_curve(scores, planted))


def test_equal_scores_find_the_planted_evenly() -> None:
    planted = np.array([True, False, False, False])
    assert detection_curve(np.zeros(4), planted).tolist() == [0.25, 0.5, 0.75, 1.0]
    assert roc_auc(np.zeros(4), planted) == 0.5


def test_the_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    rng = np.random.default_rng(0)
    scores, planted = rng.integers(0, 8, 50).astype(np.float64), rng.uniform(size=50) < 0.3
    above = scores[planted][:, None] - scores[~planted][None]
    assert roc_auc(scores, planted) == pytest.approx(np.mean((above > 0) + 0.5 * (above == 0)))


def test_found_in_first_counts_as_the_ranking_does() -> None:
    scores = np.array([1.0, 3.0, 2.0, 2.0])
    planted = np.array([False, True, False, True])
    assert found_in_first(scores, planted) == 1  # rows 1 and 2 come first: equal scores stay in row order
    assert found_in_first(scores, planted, 3) == 2
    assert found_in_first(scores, planted, 0) == 0


@pytest.mark.parametrize("planted", [np.zeros(3, dtype=bool), np.ones(3, dtype=bool)])
def test_nothing_or_everything_planted_cannot_be_judged(planted: Mask) -> None:
    with pytest.raises(QueryError, match="of 3 examples are planted"):
        detection_curve(np.arange(3.0), planted)


def test_scores_of_other_examples_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"scores \(4,\) and planted \(3,\)"):
        roc_auc(np.arange(4.0), np.array([True, False, True]))
