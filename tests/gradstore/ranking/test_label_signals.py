from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from gradstore.errors import QueryError
from gradstore.ranking.signals import compute_signals, left_out, signals_of
from gradstore.ranking.signals.base import SignalStore
from gradstore.ranking.signals.computing import Computed
from gradstore.ranking.signals.label_noise import SHARPNESS, NoiseModel, fit_noise, suggested_classes

OF_PREDICTIONS = ("label_surprise", "label_margin", "confident_doubt")
OF_LABELS = (*OF_PREDICTIONS, "neighbour_doubt", "label_error")
N, CLASSES, CHECKPOINTS = 300, 3, 2


@dataclass
class Rows:
    """What signals about labels read of a store."""

    given: NDArray[np.int32] | None
    log_probabilities: NDArray[np.float32]
    points: NDArray[np.float32]
    block: int = 4096

    @property
    def n_examples(self) -> int:
        return int(self.points.shape[1])

    @property
    def n_checkpoints(self) -> int:
        return len(self.points)

    def blocks(self, rows: int = 4096) -> Iterator[tuple[int, int]]:
        step = min(rows, self.block)
        for start in range(0, self.n_examples, step):
            yield start, min(start + step, self.n_examples)

    def keeps(self, array: str) -> bool:
        return array in ("predictions", "latents")

    def labels(self) -> NDArray[np.int32] | None:
        return self.given

    def predictions(self, checkpoint: int, start: int, stop: int) -> NDArray[np.float32]:
        return np.asarray(self.log_probabilities[checkpoint, start:stop])

    def latents(self, checkpoint: int, start: int, stop: int) -> NDArray[np.float32]:
        return np.asarray(self.points[checkpoint, start:stop])

    def latent_rows(self, checkpoint: int, indices: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.asarray(self.points[checkpoint, indices])

    def ids(self, start: int, stop: int) -> list[str]:
        return [f"x{row}" for row in range(start, stop)]


def clusters(n: int = N, wrong: int = 30, seed: int = 0) -> tuple[Rows, NDArray[np.int64], NDArray[np.bool_]]:
    """Three clear clusters, predicted well; the first `wrong` examples carry the next class's label."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, CLASSES, n)
    logits = 4.0 * np.eye(CLASSES)[true] + rng.normal(size=(CHECKPOINTS, n, CLASSES))
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
    points = 5.0 * np.eye(CLASSES)[true] + rng.normal(size=(CHECKPOINTS, n, CLASSES))
    bad = np.arange(n) < wrong
    given = np.where(bad, (true + 1) % CLASSES, true).astype(np.int32)
    return Rows(given, log_probabilities.astype(np.float32), points.astype(np.float32)), true, bad


def computed(rows: Rows, name: str) -> NDArray[np.float64]:
    return compute_signals(cast(SignalStore, rows), [name])[name]


@pytest.mark.parametrize("name", OF_LABELS)
def test_wrong_labels_stand_above_right_ones(name: str) -> None:
    rows, _, bad = clusters()
    values = computed(rows, name)
    assert np.median(values[bad]) > np.quantile(values[~bad], 0.95)


def test_surprise_is_minus_the_mean_log_probability_of_the_label() -> None:
    rows, _, _ = clusters()
    assert rows.given is not None
    expected = [-np.mean([rows.log_probabilities[t, i, rows.given[i]] for t in (0, 1)]) for i in range(N)]
    np.testing.assert_allclose(computed(rows, "label_surprise"), expected, rtol=1e-5)


def test_the_margin_is_against_the_best_other_class() -> None:
    rows, _, _ = clusters()
    assert rows.given is not None
    mean = rows.log_probabilities.mean(axis=0)
    expected = [max(mean[i, c] for c in range(CLASSES) if c != y) - mean[i, y] for i, y in enumerate(rows.given)]
    np.testing.assert_allclose(computed(rows, "label_margin"), expected, rtol=1e-4, atol=1e-5)


def test_confident_doubt_measures_each_class_by_its_own_mean_probability() -> None:
    rows, _, _ = clusters()
    assert rows.given is not None
    p = np.exp(rows.log_probabilities.mean(axis=0).astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    excess = p - np.array([p[rows.given == c, c].mean() for c in range(CLASSES)])
    expected = [np.delete(row, y).max() - row[y] for row, y in zip(excess, rows.given, strict=True)]
    np.testing.assert_allclose(computed(rows, "confident_doubt"), expected, atol=1e-5)


def test_neighbours_speak_by_label_and_prediction_but_never_of_themselves() -> None:
    """The oracle: whitened latents by numpy's inverse, neighbours one row at a time."""
    rows, _, _ = clusters(n=80)
    assert rows.given is not None
    beliefs = Computed(cast(SignalStore, rows)).neighbour_beliefs
    parts = [points - points.mean(axis=0) for points in rows.points.astype(np.float64)]
    joint = np.concatenate([part / np.sqrt(np.square(part).mean()) for part in parts], axis=1)
    covariance = joint.T @ joint / 80
    covariance += 1e-2 * np.trace(covariance) / 6 * np.eye(6)
    white = np.linalg.solve(np.linalg.cholesky(covariance), joint.T).T
    white /= np.linalg.norm(white, axis=1, keepdims=True)
    cosines = white @ white.T - 9.0 * np.eye(80)
    said = (np.eye(CLASSES)[rows.given] + np.exp(rows.log_probabilities).mean(axis=0)) / 2
    expected = np.log([said[np.argsort(-row)[:30]].mean(axis=0) + 1e-3 for row in cosines])
    np.testing.assert_allclose(beliefs, expected, atol=2e-4)


def test_a_belief_does_not_change_with_the_label_of_its_example() -> None:
    rows, _, _ = clusters()
    assert rows.given is not None
    other = rows.given.copy()
    other[7] = (other[7] + 1) % CLASSES
    before, after = (Computed(cast(SignalStore, replace(rows, given=y))).neighbour_beliefs for y in (rows.given, other))
    np.testing.assert_array_equal(before[7], after[7])
    assert (before != after).any()


def test_noise_is_recovered_from_labels_drawn_with_it() -> None:
    """20,000 labels: a rate of 0.2 is estimated with a standard error of about 0.005 a class."""
    rng = np.random.default_rng(0)
    transitions = np.array([[0.8, 0.2, 0.0], [0.0, 0.9, 0.1], [0.05, 0.05, 0.9]])
    p = rng.dirichlet([0.1, 0.1, 0.1], 20_000)
    true = (rng.random(20_000)[:, None] > np.cumsum(p, axis=1)).sum(axis=1)
    given = (rng.random(20_000)[:, None] > np.cumsum(transitions[true], axis=1)).sum(axis=1)
    found = fit_noise(np.log(p + 1e-9), given)
    assert found.sharpness == 1.0
    np.testing.assert_allclose(found.transitions, transitions, atol=0.02)


def test_beliefs_that_are_too_flat_are_sharpened() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet([0.3, 0.3, 0.3], 5_000)
    given = (rng.random(5_000)[:, None] > np.cumsum(p, axis=1)).sum(axis=1)
    assert fit_noise(np.log(p + 1e-9) / 2.0, given).sharpness == 2.0
    assert 2.0 in SHARPNESS


def test_odds_follow_bayes() -> None:
    noise = NoiseModel(np.array([[0.9, 0.1], [0.4, 0.6]]), 1.0)
    (odds,) = noise.log_odds(np.log([[0.7, 0.3]]), np.array([1]))
    assert odds == pytest.approx(np.log(0.7 * 0.1 / (0.3 * 0.6)))


def test_frequent_confusions_are_believed_sooner() -> None:
    often = NoiseModel(np.array([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), 1.0)
    seldom = NoiseModel(np.array([[0.98, 0.01, 0.01], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), 1.0)
    beliefs, label = np.log([[0.5, 0.4, 0.1]]), np.array([1])
    assert often.log_odds(beliefs, label) > seldom.log_odds(beliefs, label)


def test_the_suggested_class_is_the_most_believed_other_one() -> None:
    rows, true, bad = clusters()
    suggested = suggested_classes(cast(SignalStore, rows))
    assert (suggested != rows.given).all()
    assert (suggested[bad] == true[bad]).mean() > 0.9


@pytest.mark.parametrize("name", OF_LABELS)
def test_blocks_do_not_matter(name: str) -> None:
    rows, _, _ = clusters()
    np.testing.assert_allclose(computed(replace(rows, block=17), name), computed(rows, name), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", OF_LABELS)
def test_examples_without_a_label_are_the_least_suspected(name: str) -> None:
    rows, _, _ = clusters()
    assert rows.given is not None
    rows.given[100:140] = -1
    values = computed(rows, name)
    assert np.isfinite(values).all()
    assert (values[100:140] == values.min()).all()


def test_without_labels_the_signals_are_left_out_and_said_to_be() -> None:
    rows = replace(clusters()[0], given=None)
    assert not set(OF_LABELS) & set(signals_of(cast(SignalStore, rows)))
    assert all("labels" in left_out(cast(SignalStore, rows))[name] for name in OF_LABELS)
    with pytest.raises(QueryError, match="no example of this store has one"):
        computed(rows, "label_margin")


def test_one_class_leaves_them_out_and_accuses_nobody_when_asked() -> None:
    rows, _, _ = clusters()
    rows = replace(rows, given=np.zeros(N, dtype=np.int32), log_probabilities=rows.log_probabilities[:, :, :1] * 0)
    assert not set(OF_LABELS) & set(signals_of(cast(SignalStore, rows)))
    for name in OF_LABELS:
        assert np.ptp(computed(rows, name)) == 0
    assert (suggested_classes(cast(SignalStore, rows)) == -1).all()


@pytest.mark.parametrize("name", OF_LABELS)
def test_a_label_that_is_no_class_of_the_model_is_refused(name: str) -> None:
    rows, _, _ = clusters()
    assert rows.given is not None
    rows.given[5] = 7
    with pytest.raises(QueryError, match=r"'x5' has the label 7 .* 3 classes"):
        computed(rows, name)


@pytest.mark.parametrize("name", OF_LABELS)
def test_predictions_that_are_nan_are_refused_by_id(name: str) -> None:
    rows, _, _ = clusters()
    rows.log_probabilities[1, 12, 0] = np.nan
    with pytest.raises(QueryError, match="'x12' are NaN or infinite"):
        computed(rows, name)


@pytest.mark.parametrize("n", [2, 3, 9])
def test_fewer_examples_than_neighbours_are_enough(n: int) -> None:
    rows, _, _ = clusters(n=n, wrong=0)
    rows.given = np.arange(n, dtype=np.int32) % 2
    for name in OF_LABELS:
        assert np.isfinite(computed(rows, name)).all()
