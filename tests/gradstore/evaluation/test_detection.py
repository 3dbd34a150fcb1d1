from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from gradstore.errors import QueryError, ShapeError
from gradstore.evaluation.detection import (
    Detection,
    Interval,
    detection_curve,
    found_in_first,
    judge,
    mean_detection,
    mean_detection_from_auc,
    pooled,
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


def normal(n_planted: int = 40, n: int = 1000, shift: float = 1.0, seed: int = 0) -> tuple[Scores, Mask]:
    """Scores of standard deviation 1; those of planted examples are higher by `shift`."""
    planted = np.arange(n) < n_planted
    return np.random.default_rng(seed).normal(size=n) + shift * planted, planted


def intervals(found: Detection) -> dict[str, Interval]:
    by_share = {f"found in {share}": interval for share, interval in found.found.items()}
    return {"auc": found.roc_auc, "ap": found.average_precision, "D": found.mean_detection, **by_share}


@given(judged())
def test_values_are_those_of_the_single_measures(case: tuple[Scores, Mask]) -> None:
    scores, planted = case
    found = judge(scores, planted, shares=[0.25, 1.0], n_resamples=1)
    curve = detection_curve(scores, planted)
    assert found.roc_auc.value == pytest.approx(roc_auc(scores, planted), abs=1e-12)
    assert found.average_precision.value == pytest.approx(average_precision_score(planted, scores), abs=1e-12)
    assert found.mean_detection.value == pytest.approx(curve.mean(), abs=1e-12)
    assert found.found[0.25].value == pytest.approx(curve[max(1, round(len(curve) / 4)) - 1], abs=1e-12)
    assert found.found[1.0] == Interval(1.0, 1.0, 1.0)


def test_found_in_a_share_by_hand() -> None:
    scores = np.arange(100.0)[::-1]
    planted = np.isin(np.arange(100), [0, 3, 8, 60])  # ranks 1, 4, 9 and 61
    found = {share: interval.value for share, interval in judge(scores, planted).found.items()}
    assert found == {0.01: 0.25, 0.05: 0.5, 0.1: 0.75}


def test_equal_scores_are_chance_whatever_is_drawn() -> None:
    planted = np.arange(100) < 10
    found = intervals(judge(np.ones(100), planted))
    expected = {"auc": 0.5, "ap": 0.1, "D": 0.505, "found in 0.01": 0.01, "found in 0.05": 0.05, "found in 0.1": 0.1}
    for name, interval in found.items():
        values = [interval.value, interval.low, interval.high]
        np.testing.assert_allclose(values, expected[name], rtol=1e-12, err_msg=name)


def test_a_bootstrap_draws_planted_and_ordinary_apart() -> None:
    """Its spread is that of the textbook: of the share found, a binomial's; of the area, Hanley & McNeil's (1982)."""
    scores, planted = normal(n_planted=200, n=2000)
    found = judge(scores, planted, n_resamples=1000, level=0.6826895)  # one standard deviation to either side
    auc, share = found.roc_auc.value, found.found[0.1].value
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + 199 * (q1 - auc**2) + 1799 * (q2 - auc**2)) / (200 * 1800)
    assert (found.roc_auc.high - found.roc_auc.low) / 2 == pytest.approx(np.sqrt(variance), rel=0.15)
    binomial = np.sqrt(share * (1 - share) / 200)  # the ordinary that move the border add a little
    assert binomial * 0.85 < (found.found[0.1].high - found.found[0.1].low) / 2 < binomial * 1.4


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    truth = 0.760250  # of the ROC-AUC of scores one standard deviation apart: Phi(1 / sqrt(2))
    found = [judge(*normal(seed=seed), n_resamples=100).roc_auc for seed in range(60)]
    assert sum(interval.low <= truth <= interval.high for interval in found) >= 50  # 57 are expected


def test_a_lower_level_is_a_narrower_interval_about_the_same_value() -> None:
    wide, narrow = (intervals(judge(*normal(), level=level)) for level in (0.95, 0.5))
    for name, interval in wide.items():
        assert interval.value == narrow[name].value
        assert interval.low <= narrow[name].low <= narrow[name].high <= interval.high
    assert wide["auc"].low < narrow["auc"].low


def test_the_seed_alone_decides() -> None:
    assert judge(*normal(), seed=1) == judge(*normal(), seed=1) != judge(*normal(), seed=2)


@given(judged())
def test_only_the_order_of_scores_counts(case: tuple[Scores, Mask]) -> None:
    scores, planted = case
    assert judge(np.exp(scores) - 7, planted, n_resamples=5) == judge(scores, planted, n_resamples=5)


def test_perfect_scores_leave_nothing_to_doubt() -> None:
    found = judge(np.arange(100.0), np.arange(100) >= 95)
    assert found.roc_auc == found.average_precision == found.found[0.05] == Interval(1.0, 1.0, 1.0)


def test_pooled_is_the_mean_over_plantings_and_holds_what_differs_between_them() -> None:
    plantings = [normal(shift=shift, seed=seed) for seed, shift in enumerate([0.2, 1.0, 2.5])]
    single = [intervals(judge(*planting)) for planting in plantings]
    for name, interval in intervals(pooled(plantings)).items():
        assert interval.value == pytest.approx(np.mean([one[name].value for one in single]), abs=1e-12)
    together = pooled(plantings).roc_auc
    alike = pooled([normal(shift=1.0, seed=seed) for seed in range(3)]).roc_auc
    assert together.high - together.low > 2 * (alike.high - alike.low)
    assert alike.high - alike.low < single[1]["auc"].high - single[1]["auc"].low


def test_one_planting_is_pooled_with_nothing() -> None:
    assert pooled([normal()]) == judge(*normal())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_scores_without_an_order_are_named(value: float) -> None:
    scores, planted = normal()
    scores[[17, 30]] = value
    for measure in (judge, roc_auc, detection_curve, found_in_first):
        with pytest.raises(QueryError, match=r"2 of 1000 scores are NaN or infinite \(first: row 17\)"):
            measure(scores, planted)


@pytest.mark.parametrize("planted", [np.zeros(3, dtype=bool), np.ones(3, dtype=bool)])
def test_nothing_or_everything_planted_has_no_interval(planted: Mask) -> None:
    with pytest.raises(QueryError, match="of 3 examples are planted"):
        judge(np.arange(3.0), planted)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"level": 1.0}, "level 1.0 from 200 draws"),
        ({"n_resamples": 0}, "from 0 draws"),
        ({"shares": [0.1, 0.0]}, "A share of 0.0"),
        ({"shares": [1.5]}, "A share of 1.5"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(QueryError, match=words):
        judge(*normal(), **settings)


def test_no_planting_cannot_be_judged() -> None:
    with pytest.raises(QueryError, match="no planting to judge"):
        pooled([])
