from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from gradstore.errors import QueryError, UnknownSignalError
from gradstore.ranking import signals
from gradstore.ranking.signals import SIGNALS, compute_signals, signals_of
from gradstore.store import Store

MakeStore = Callable[..., Store]
NAMES = {
    "loss",
    "self_influence",
    "leverage",
    "joint_leverage",
    "unit_leverage",
    "latent_distance",
    "gradient_distance",
}


def brute_force_distance(points: NDArray[np.float64], reference: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    distances = np.linalg.norm(points[:, None] - points[None, reference], axis=2)
    distances[reference, np.arange(len(reference))] = np.inf
    return np.asarray(np.sort(distances, axis=1)[:, :k].mean(axis=1))


def test_the_registry_holds_every_signal_under_its_own_name() -> None:
    assert set(SIGNALS) == NAMES
    assert all(signal.name == name for name, signal in SIGNALS.items())


@pytest.mark.parametrize("name", sorted(NAMES - {"self_influence"}))
def test_every_signal_is_highest_for_the_odd_example(store: Store, name: str) -> None:
    values = SIGNALS[name].compute(store)
    assert values.shape == (60,)
    assert values.argmax() == 41


def test_loss_is_the_mean_over_checkpoints(store: Store) -> None:
    expected = (store.losses(0).astype(np.float64) + store.losses(1)) / 2
    np.testing.assert_allclose(SIGNALS["loss"].compute(store), expected)


def test_self_influence_weighs_squared_norms_by_learning_rates(store: Store) -> None:
    expected = 0.1 * store.norms(0).astype(np.float64) ** 2 + 0.01 * store.norms(1).astype(np.float64) ** 2
    np.testing.assert_allclose(SIGNALS["self_influence"].compute(store), expected, rtol=1e-6)


def test_latent_distance_is_the_mean_distance_to_ten_others(store: Store) -> None:
    everyone = np.arange(60)
    latents = [store.latents(t, 0, 60).astype(np.float64) for t in (0, 1)]
    expected = np.mean([brute_force_distance(points, everyone, 10) for points in latents], axis=0)
    np.testing.assert_allclose(SIGNALS["latent_distance"].compute(store), expected, rtol=1e-5)


def test_gradient_distance_is_one_minus_the_cosine_to_ten_others(store: Store) -> None:
    parts = []
    for checkpoint in (0, 1):
        rows = store.unit_sketches(checkpoint, 0, 60).astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = rows @ rows.T - 9.0 * np.eye(60)
        parts.append(1.0 - np.sort(cosines, axis=1)[:, -10:].mean(axis=1))
    np.testing.assert_allclose(SIGNALS["gradient_distance"].compute(store), np.mean(parts, axis=0), atol=1e-5)


def test_a_large_store_is_measured_against_a_seeded_reference(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "N_REFERENCE", 20)
    chosen = np.sort(np.random.default_rng(0).choice(60, 20, replace=False))
    latents = [store.latents(t, 0, 60).astype(np.float64) for t in (0, 1)]
    expected = np.mean([brute_force_distance(points, chosen, 10) for points in latents], axis=0)
    np.testing.assert_allclose(SIGNALS["latent_distance"].compute(store), expected, rtol=1e-5)


def test_variance_over_draws_is_there_where_it_is_kept(make_store: MakeStore) -> None:
    """The draws' mean squared norm is that of the mean plus 1, plus 7 for the odd example."""
    store = make_store(n_draws=2)
    assert signals_of(store) == [*SIGNALS, "draw_variance"]
    values = compute_signals(store)["draw_variance"]
    expected = np.ones(60)
    expected[41] = 7.0
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_variance_over_draws_is_never_below_zero(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(n_draws=2)
    monkeypatch.setattr(Store, "draw_norms", lambda self, checkpoint: np.nextafter(self.norms(checkpoint), 0))
    assert (compute_signals(store, ["draw_variance"])["draw_variance"] == 0).all()


def test_a_signal_that_the_store_does_not_keep_is_no_signal_of_it(store: Store) -> None:
    assert signals_of(store) == list(compute_signals(store)) == list(SIGNALS)
    with pytest.raises(QueryError, match="keeps no variance over Monte Carlo draws"):
        compute_signals(store, ["draw_variance"])


@pytest.mark.parametrize("n", [1, 2, 8])
def test_a_tiny_store_has_finite_signals(make_store: MakeStore, n: int) -> None:
    computed = compute_signals(make_store(n=n))
    assert all(np.isfinite(values).all() and values.shape == (n,) for values in computed.values())


def test_only_the_named_signals_are_computed_and_progress_hears_of_each(store: Store) -> None:
    heard: list[str] = []
    computed = compute_signals(store, ["unit_leverage", "loss", "loss"], heard.append)
    assert list(computed) == heard == ["unit_leverage", "loss"]


def test_an_unknown_signal_is_refused_before_anything_is_computed(store: Store) -> None:
    heard: list[str] = []
    with pytest.raises(UnknownSignalError, match=r"no signal 'lost'. The signals are loss, self_influence, leverage"):
        compute_signals(store, ["loss", "lost"], heard.append)
    assert heard == []


def test_a_reason_names_the_value_and_never_rounds_a_percentile_up() -> None:
    sentence = SIGNALS["joint_leverage"].reason(41.234, 99.97)
    assert sentence == ("joint leverage 41.2 is above 99.97 % of examples: few others push the model in its direction")
