"""The estimated number of bad examples, on data where it is known."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from gradstore.ranking.cutoff import CutOff, estimate_bad

N = 4000


def signals(n_bad: int, seed: int = 0, apart: float = 6.0) -> dict[str, NDArray[np.float64]]:
    """Three signals of one hidden oddity, log-normal and each with noise of its own; the bad stand apart in all."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=N) + apart * (np.arange(N) < n_bad)
    return {f"s{i}": np.exp(0.5 * (hidden + 0.5 * rng.normal(size=N))) for i in range(3)}


@pytest.mark.parametrize("n_bad", [20, 80, 200, 400])
def test_bad_examples_that_stand_apart_are_counted(n_bad: int) -> None:
    found = estimate_bad(signals(n_bad))
    assert found.low <= n_bad <= found.high
    assert found.n == pytest.approx(n_bad, rel=0.35, abs=12)


@pytest.mark.parametrize("seed", range(5))
def test_clean_data_has_few_bad_examples(seed: int) -> None:
    found = estimate_bad(signals(0, seed))
    assert found.low <= 0.0025 * N
    assert found.n <= 0.0075 * N


def test_a_skewed_clean_signal_is_no_evidence() -> None:
    found = estimate_bad({"squared": np.random.default_rng(0).chisquare(20, N)})
    assert found.n <= 0.01 * N


def test_the_score_at_the_cut_off_has_so_many_at_or_above_it() -> None:
    values = signals(80)
    scores = np.sum(list(values.values()), axis=0)
    found = estimate_bad(values, scores)
    assert int((scores >= found.score).sum()) == found.n


def test_equal_scores_hold_no_bad_example() -> None:
    assert estimate_bad({"loss": np.full(N, 3.0)}, np.zeros(N)).n == 0
    assert estimate_bad({"loss": np.zeros(N)}, np.zeros(N)).score is None


def test_few_examples_say_nothing() -> None:
    assert estimate_bad({"loss": np.arange(99.0)}) == CutOff(0, 0, 99, None)


def test_negative_signals_are_taken_as_they_are() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=N) + 8.0 * (np.arange(N) < 80)
    assert estimate_bad({"loss": values}).n == pytest.approx(80, abs=15)


def test_the_estimate_in_words() -> None:
    assert str(CutOff(80, 40, 1200, 1.0)) == "About 80 look bad (likely 40 to 1,200)."
    assert str(CutOff(0, 0, 12, None)) == "About none look bad (likely 0 to 12)."
    assert str(CutOff(5, 3, 9, 1.0, 1200)).endswith("9). 1,200 more have near copies or lie in a small group apart.")
