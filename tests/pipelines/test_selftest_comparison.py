"""When one signal is said to be better than another: against the bootstrap, and against luck."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gradstore.evaluation.detection import roc_auc
from gradstore_pipelines.trials.advice import Advice, advice_on
from gradstore_pipelines.trials.comparison import Advantage, advantage, over_all

N, N_PLANTED = 400, 40
PLANTED = np.arange(N) < N_PLANTED


def two_signals(seed: int, better: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two readings of one thing, each with noise of its own."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=N) + PLANTED
    return shared + better * PLANTED + 0.5 * rng.normal(size=N), shared + 0.5 * rng.normal(size=N)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=4, max_size=30), st.data())
def test_it_is_the_difference_of_the_roc_aucs(scores: list[tuple[int, int]], data: st.DataObject) -> None:
    a, b = np.array(scores, dtype=float).T
    n = data.draw(st.integers(1, len(a) - 1))
    planted = np.arange(len(a)) < n
    found = advantage(a, b, planted)
    assert found.value == pytest.approx(roc_auc(a, planted) - roc_auc(b, planted), abs=1e-12)
    assert found.variance == pytest.approx(advantage(b, a, planted).variance)


def test_its_variance_is_that_of_the_bootstrap() -> None:
    a, b = two_signals(0)
    rng, drawn = np.random.default_rng(1), []
    for _ in range(2000):
        rows = np.concatenate([rng.integers(0, N_PLANTED, N_PLANTED), rng.integers(N_PLANTED, N, N - N_PLANTED)])
        drawn.append(
            np.mean([scores[:N_PLANTED, None] > scores[N_PLANTED:] for scores in (a[rows], b[rows])], axis=(1, 2))
        )
    # 2,000 draws know a variance to 3 %, and resampling 40 takes away one in 40 of it
    assert advantage(a, b, PLANTED).variance == pytest.approx(np.var(np.diff(drawn)), rel=0.1)


def test_luck_is_rarely_taken_for_an_advantage_and_an_advantage_is_seen() -> None:
    by_luck = [advantage(*two_signals(seed), PLANTED).is_beyond_noise() for seed in range(300)]
    assert np.mean(by_luck) == pytest.approx(0.025, abs=0.025)  # two standard errors are .018
    assert np.mean([advantage(*two_signals(seed, 1.0), PLANTED).is_beyond_noise() for seed in range(50)]) > 0.9


def test_of_one_example_nothing_is_known() -> None:
    a, b = two_signals(0)
    found = advantage(a, b, np.arange(N) < 1)
    assert found.variance == float("inf")
    assert not Advantage(1.0, found.variance).is_beyond_noise()


def test_of_many_compared_each_must_be_better_by_more() -> None:
    found = Advantage(0.1, 0.04**2)
    assert found.margin() == pytest.approx(1.96 * 0.04, rel=1e-3)
    assert found.is_beyond_noise()
    assert not found.is_beyond_noise(20)


def test_repeats_that_disagree_are_less_sure_than_their_examples_say() -> None:
    agreeing, apart = [Advantage(0.1, 0.0001)] * 2, [Advantage(0.0, 0.0001), Advantage(0.2, 0.0001)]
    assert over_all([agreeing]).variance == pytest.approx(0.00005)
    assert over_all([apart]).variance == pytest.approx(0.01)
    assert over_all([agreeing, agreeing]).variance == pytest.approx(0.000025)


def advised(single: float, error: float, combined: float = 0.8) -> Advice:
    """On two kinds, a signal beside a good one."""
    aucs = {"combined": combined, "loss": single, "leverage": 0.4}
    over = {name: [Advantage(value - combined, error**2)] for name, value in aucs.items()}
    return advice_on("examples", {"noise": aucs, "rotated": aucs}, {"noise": over, "rotated": over})


@pytest.mark.parametrize(
    ("single", "error", "recommended", "n_within"),
    [
        (0.9, 0.02, "loss", 0),
        (0.9, 0.2, "combined", 2),  # may be luck
        (0.805, 0.0001, "combined", 2),  # no luck, and no matter
        (0.7, 0.0001, "combined", 2),
    ],
)
def test_a_single_signal_is_recommended_where_it_is_better_beyond_noise(
    single: float, error: float, recommended: str, n_within: int
) -> None:
    advice = advised(single, error)
    assert (advice.signal, advice.best, advice.n_within) == (recommended, "loss", n_within)
    assert (advice.combined, advice.best_roc_auc) == (0.8, single)
    found = advice.to_json()
    assert found["advantage"] == pytest.approx(single - 0.8)
    assert found["advantage_low"] < found["advantage"] < found["advantage_high"]


def test_without_a_combined_score_the_best_signal_is_recommended() -> None:
    advice = advice_on("examples", {"noise": {"loss": 0.6, "leverage": 0.7}}, {"noise": {}})
    assert (advice.signal, advice.combined, advice.advantage) == ("leverage", None, None)
    assert advice.to_json()["advantage"] is None


def test_a_signal_that_is_missing_from_a_kind_is_not_recommended() -> None:
    kinds = {"noise": {"combined": 0.5, "loss": 0.6}, "rotated": {"combined": 0.5, "loss": 0.6, "leverage": 1.0}}
    over = {kind: {name: [Advantage(a - 0.5, 1.0)] for name, a in aucs.items()} for kind, aucs in kinds.items()}
    assert advice_on("examples", kinds, over).best == "loss"
