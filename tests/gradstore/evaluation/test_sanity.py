from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradstore.errors import QueryError
from gradstore.evaluation.sanity import own_proponent_share, similarity_rate
from gradstore.influence.tracin import tracin_influence
from gradstore.search.weights import Normalise
from gradstore.testing.store_kit import store_of

RATES = [0.5, 0.25]
N = 60
LABELS = [row * row % 3 for row in range(N)]  # 20 of class 0, 40 of class 1


def gradients(n: int = N, d: int = 6, seed: int = 0) -> NDArray[np.float64]:
    """Of different lengths, at two checkpoints."""
    random = np.random.default_rng(seed)
    return random.standard_normal((2, n, d)) * np.exp(random.standard_normal((1, n, 1)))


def influence(grads: NDArray[np.float64], normalise: Normalise = "none") -> NDArray[np.float64]:
    """Of every example on every other, in float64."""
    scores = tracin_influence(grads, grads, np.array(RATES))
    roots = np.sqrt(np.diag(scores))
    return scores / (roots[:, None] * roots if normalise == "cosine" else 1.0)


def test_shares_are_those_of_the_influence_matrix(tmp_path: Path) -> None:
    grads = gradients()
    store = store_of(tmp_path / "s", grads, learning_rates=RATES, shard_rows=16)
    found = own_proponent_share(store)
    expected = np.mean(influence(grads).argmax(axis=1) == np.arange(N))
    assert 0.1 < expected < 0.9
    assert found.dot == pytest.approx(expected)
    assert found.cosine == 1.0
    assert (found.n_asked, found.n_searched, found.chance) == (N, N, 1 / N)


def test_orthogonal_gradients_are_their_own_proponents_and_of_parallel_ones_the_longest_is(tmp_path: Path) -> None:
    lengths = np.arange(1.0, 9.0)
    across = store_of(tmp_path / "across", np.diag(lengths)[None])
    along = store_of(tmp_path / "along", lengths[None, :, None] * np.ones(4))
    assert own_proponent_share(across).dot == 1.0
    assert own_proponent_share(along).dot == own_proponent_share(along).chance == 1 / 8


def test_copies_share_their_place(tmp_path: Path) -> None:
    grads = np.repeat(np.eye(5), 3, axis=0)[None]
    found = own_proponent_share(store_of(tmp_path / "s", grads))
    assert found.dot == found.cosine == found.cosine_expected == 1.0


def test_influence_at_some_checkpoints(tmp_path: Path) -> None:
    grads = np.stack([np.eye(8), np.outer(np.arange(1.0, 9.0), np.ones(8))])
    store = store_of(tmp_path / "s", grads)
    assert own_proponent_share(store, checkpoints=[0]).dot == 1.0
    assert own_proponent_share(store, checkpoints=[-1]).dot == 1 / 8


def test_the_seed_draws_the_sample(tmp_path: Path) -> None:
    grads = gradients()
    store = store_of(tmp_path / "s", grads, learning_rates=RATES, shard_rows=16)
    own = influence(grads).argmax(axis=1) == np.arange(N)
    shares = [own_proponent_share(store, sample=7, seed=seed) for seed in range(12)]
    assert {found.n_asked for found in shares} == {7}
    assert shares[3] == own_proponent_share(store, sample=7, seed=3)
    assert len({found.dot for found in shares}) > 1
    # the mean of twelve samples of 7: within four standard errors
    assert abs(np.mean([found.dot for found in shares]) - own.mean()) < 4 * own.std() / np.sqrt(84)


def test_the_forgotten_are_nobodys_proponents(tmp_path: Path) -> None:
    lengths = np.array([1.0, 2.0, 3.0, 4.0])
    store = store_of(tmp_path / "s", lengths[None, :, None] * np.eye(1, 3), labels=[0, 1, 0, 1])
    store.forget(["x3"])
    found = own_proponent_share(store)
    assert (found.dot, found.n_asked, found.n_searched) == (1 / 3, 3, 3)
    rate = similarity_rate(store, m=1)
    assert rate is not None
    assert (rate.top, rate.n_asked) == (1 / 3, 3)  # x0 and x1 find x2, which finds x1
    assert rate.chance == pytest.approx((1 + 0 + 1) / 3 / 2)


def test_an_example_without_a_gradient_is_not_asked(tmp_path: Path) -> None:
    grads = np.concatenate([np.zeros((1, 2, 3)), np.eye(3)[None]], axis=1)
    found = own_proponent_share(store_of(tmp_path / "s", grads))
    assert (found.dot, found.cosine, found.n_asked, found.n_searched) == (1.0, 1.0, 3, 5)
    with pytest.raises(QueryError, match="has a gradient at these checkpoints"):
        own_proponent_share(store_of(tmp_path / "none", np.zeros((1, 4, 3))))


def rate_of(grads: NDArray[np.float64], labels: list[int], m: int, normalise: Normalise = "none") -> dict[str, float]:
    """By sorting the influence matrix."""
    scores, own = influence(grads, normalise), np.array(labels)
    tops, bottoms = [], []
    for row in range(len(own)):
        order = [other for other in np.argsort(-scores[row]) if other != row]
        tops.append(np.mean(own[order[:m]] == own[row]))
        bottoms.append(np.mean(own[order[-m:]] == own[row]))
    return {"top": float(np.mean(tops)), "bottom": float(np.mean(bottoms))}


@pytest.mark.parametrize("normalise", ["none", "cosine"])
def test_similarity_rates_are_those_of_the_sorted_influence(tmp_path: Path, normalise: Normalise) -> None:
    grads = gradients() + 2.0 * np.eye(6)[LABELS]
    store = store_of(tmp_path / "s", grads, labels=LABELS, learning_rates=RATES, shard_rows=16)
    found = similarity_rate(store, m=5, normalise=normalise)
    assert found is not None
    assert {"top": found.top, "bottom": found.bottom} == pytest.approx(rate_of(grads, LABELS, 5, normalise))
    assert found.chance == pytest.approx((20 * 19 + 40 * 39) / 60 / 59)
    assert found.top > found.chance


@pytest.mark.parametrize("m", [N - 1, 1000])
def test_over_all_examples_the_rate_is_the_class_share_exactly(tmp_path: Path, m: int) -> None:
    store = store_of(tmp_path / "s", gradients(), labels=LABELS, learning_rates=RATES)
    found = similarity_rate(store, m=m)
    assert found is not None
    assert found.top == pytest.approx(found.chance, abs=1e-12)
    assert found.bottom == pytest.approx(found.chance, abs=1e-12)
    assert found.m == N - 1


def test_gradients_that_know_nothing_of_labels_are_at_chance(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    store = store_of(
        tmp_path / "s", random.standard_normal((1, 400, 64)), labels=random.permutation([0, 1] * 200).tolist()
    )
    found = similarity_rate(store, m=10, normalise="cosine")
    assert found is not None
    assert found.chance == pytest.approx(199 / 399)
    for rate in (found.top, found.bottom):
        assert abs(rate - found.chance) < 5 * 0.5 / np.sqrt(400 * 10)  # 4,000 nearly independent coins


def test_gradients_that_are_labels_are_at_both_extremes(tmp_path: Path) -> None:
    labels = [0, 1] * 8
    store = store_of(
        tmp_path / "s", np.where(np.array(labels) == 0, 1.0, -1.0)[None, :, None] * np.ones(3), labels=labels
    )
    found = similarity_rate(store, m=7)
    assert found is not None
    assert (found.top, found.bottom, found.chance) == (1.0, 0.0, 7 / 15)


def test_unlabelled_examples_are_neither_asked_nor_found(tmp_path: Path) -> None:
    grads = np.ones((1, 9, 2)) * np.array([1, 1, 1, 9, 9, 9, -9, -9, -9.0])[None, :, None]
    labels: list[int | None] = [0, 0, 0, None, None, None, None, None, None]
    found = similarity_rate(store_of(tmp_path / "s", grads, labels=labels), m=2)
    assert found is not None
    assert (found.top, found.bottom, found.chance, found.n_asked) == (1.0, 1.0, 1.0, 3)


@pytest.mark.parametrize("labels", [None, [0, None, None]])
def test_without_labels_there_is_no_rate(tmp_path: Path, labels: Any) -> None:
    assert similarity_rate(store_of(tmp_path / "s", np.ones((1, 3, 2)), labels=labels)) is None


def test_settings_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s", np.ones((1, 3, 2)), labels=[0, 1, 0])
    with pytest.raises(QueryError, match="A sample of 0 examples"):
        own_proponent_share(store, sample=0)
    with pytest.raises(QueryError, match="A sample of -1 examples"):
        similarity_rate(store, sample=-1)
    with pytest.raises(QueryError, match="m=0 examples"):
        similarity_rate(store, m=0)
    with pytest.raises(QueryError, match="checkpoints 0 to 0, not 3"):
        own_proponent_share(store, checkpoints=[3])
