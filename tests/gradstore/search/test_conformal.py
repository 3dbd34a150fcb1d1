"""Credibility: p-values that mean what they say, on data that are exchangeable and on data that are not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from gradstore.errors import QueryError
from gradstore.search.conformal import Credibility, Voters, conformal_credibility, p_values
from gradstore.testing.index_kit import MemoryRows

Array = np.ndarray[Any, Any]


def clouds(n: int, n_labels: int, spread: float, seed: int, n_checkpoints: int = 2) -> tuple[Array, Array]:
    """Latents [checkpoint, n, 3] around one centre a label, and labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, n_labels, n)
    centres = np.random.default_rng(n_labels).standard_normal((n_checkpoints, n_labels, 3))
    return (centres[:, labels] + spread * random.standard_normal((n_checkpoints, n, 3))).astype(np.float32), labels


def rows_of(points: Array) -> MemoryRows:
    return replace(MemoryRows.random(points.shape[1], n_checkpoints=len(points)), points=points)


def brute_force(points: Array, labels: Array, calibration: Array, queries: Array, k: int, n_labels: int) -> Array:
    """p-values by the definition, one query and one label at a time."""

    def nonconformity(point: Array, label: int) -> int:
        total = 0
        for t in range(len(points)):
            voters = [row for row in range(len(labels)) if row not in calibration]
            distances = cdist(point[t : t + 1].astype(float), points[t, voters].astype(float))[0]
            total += sum(labels[voters[i]] != label for i in np.argsort(distances)[:k])
        return total

    usual = [nonconformity(points[:, row], labels[row]) for row in calibration]
    return np.array(
        [
            [
                (1 + sum(u >= nonconformity(queries[:, q], label) for u in usual)) / (1 + len(usual))
                for label in range(n_labels)
            ]
            for q in range(queries.shape[1])
        ]
    )


def test_p_values_are_those_of_the_definition() -> None:
    (points, labels), (queries, _) = clouds(60, 3, 1.0, 0), clouds(8, 3, 1.0, 1)
    voters = Voters.draw(labels, 3, [1, 5, 17, 33, 40, 59])
    found = conformal_credibility(rows_of(points), queries, voters, 7)
    np.testing.assert_allclose(found.p_values, brute_force(points, labels, voters.calibration, queries, 7, 3))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 1.0, 3.0]))
def test_under_the_true_label_p_values_of_exchangeable_examples_are_valid(seed: int, spread: float) -> None:
    """P(p <= a) <= a: 300 queries against 150 calibration rows, four standard errors of both."""
    (points, labels), (queries, truth) = clouds(450, 3, spread, seed), clouds(300, 3, spread, seed + 20_000)
    found = conformal_credibility(rows_of(points), queries, Voters.draw(labels, 3, 1 / 3, seed), 9)
    of_truth = found.p_values[np.arange(300), truth]
    for a in (0.05, 0.1, 0.3, 0.6):
        slack = 4 * np.sqrt(a * (1 - a) * (1 / 300 + 1 / 150))
        assert (of_truth <= a).mean() <= a + slack


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 40))
def test_leaving_oneself_out_makes_calibration_p_values_uniform_on_their_ranks(seed: int, n: int) -> None:
    """A calibration example under its own label: (number of scores >= its own) / n, the rank by definition."""
    scores = np.random.default_rng(seed).integers(0, 10, n)
    found = p_values(scores[:, None], scores, own=scores)
    np.testing.assert_allclose(found[:, 0], [(scores >= score).sum() / n for score in scores])


def test_calibration_examples_are_nobody_s_neighbours() -> None:
    points, labels = clouds(40, 2, 1.0, 0, n_checkpoints=1)
    labels[:] = 0
    labels[[3, 8]] = 1
    voters = Voters.draw(labels, 2, [3, 8])
    found = conformal_credibility(rows_of(points), points[:, [3, 8]], voters, 5, own_rows=np.array([3, 8]))
    np.testing.assert_array_equal(found.nonconformity, [[0, 5], [0, 5]])


def test_an_example_does_not_vote_for_itself() -> None:
    points, labels = clouds(30, 2, 1.0, 0, n_checkpoints=1)
    labels[:] = 0
    labels[4] = 1
    voters = Voters.draw(labels, 2, [20, 21])
    own = conformal_credibility(rows_of(points), points[:, [4]], voters, 3, own_rows=np.array([4]))
    new = conformal_credibility(rows_of(points), points[:, [4]], voters, 3)
    assert (own.nonconformity[0, 1], new.nonconformity[0, 1]) == (3, 2)


def test_an_outlier_among_clear_classes_is_not_credible_and_a_member_is() -> None:
    points, labels = clouds(300, 3, 0.02, 0)
    queries = np.stack([points[:, 7], (points[:, labels == 0].mean(1) + points[:, labels == 1].mean(1)) / 2], axis=1)
    found = conformal_credibility(rows_of(points), queries, Voters.draw(labels, 3, 0.3), 40)
    assert found.predicted[0] == labels[7]
    assert (found.credibility[0], found.confidence[0] > 0.9) == (1.0, True)
    mislabelled = found.p_values[0, (labels[7] + 1) % 3]
    assert mislabelled == pytest.approx(1 / 91)


def test_one_class_is_credible_with_full_confidence() -> None:
    points, labels = clouds(30, 1, 1.0, 0)
    found = conformal_credibility(rows_of(points), points[:, :4], Voters.draw(labels, 1), 5)
    np.testing.assert_array_equal(
        (found.credibility, found.confidence, found.predicted), np.array([1.0, 1, 0])[:, None] * np.ones(4)
    )


def test_a_class_that_calibration_misses_gets_p_values_like_any_other() -> None:
    points, labels = clouds(90, 3, 0.05, 0)
    voters = Voters.draw(labels, 3, np.flatnonzero(labels != 2)[:10])
    member = np.flatnonzero(labels == 2)[:1]
    found = conformal_credibility(rows_of(points), points[:, member], voters, 10, own_rows=member)
    assert (found.predicted[0], found.credibility[0]) == (2, 1.0)


def test_examples_without_a_label_have_no_say() -> None:
    points, labels = clouds(60, 2, 0.05, 0)
    without = np.where(np.arange(60) < 20, -1, labels)
    found = conformal_credibility(rows_of(points), points[:, :5], Voters.draw(without, 2, [30, 31]), 4)
    alone = conformal_credibility(rows_of(points[:, 20:]), points[:, :5], Voters.draw(labels[20:], 2, [10, 11]), 4)
    np.testing.assert_array_equal(found.p_values, alone.p_values)


def test_ties_of_p_values_go_to_the_label_that_conforms_best() -> None:
    found = Credibility(np.array([[0.5, 0.5, 0.1]]), np.array([[4, 3, 9]]))
    assert (found.predicted.tolist(), found.confidence.tolist()) == ([1], [0.5])


def test_calibration_by_share_is_a_tenth_and_no_more_than_the_paper_s() -> None:
    labels = np.zeros(20_000, np.int32)
    assert len(Voters.draw(labels, 1).calibration) == 750
    assert len(Voters.draw(labels[:300], 1).calibration) == 30
    assert len(Voters.draw(labels[:300], 1, 0.5).calibration) == 150


def test_questions_without_enough_voters_are_refused() -> None:
    points, labels = clouds(30, 2, 1.0, 0)
    with pytest.raises(QueryError, match="k=26 is larger than the 25 examples that leaving out calibration"):
        conformal_credibility(rows_of(points), points[:, :1], Voters.draw(labels, 2, [0, 1, 2, 3, 4]), 26)
    for share in (0.0, 1.0, -0.5):
        with pytest.raises(QueryError, match="is no share of the examples"):
            Voters.draw(labels, 2, share)
    with pytest.raises(QueryError, match="row 3 has no label"):
        Voters.draw(np.where(np.arange(30) == 3, -1, labels), 2, [3, 4])
    with pytest.raises(QueryError, match="30 of 30 were named"):
        Voters.draw(labels, 2, range(30))
