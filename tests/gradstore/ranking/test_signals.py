from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gradstore.errors import QueryError, UnknownSignalError
from gradstore.ranking.signals import ALL_SIGNALS, SIGNALS, compute_signals, left_out, reference, signals_of
from gradstore.store import Store
from gradstore.testing.store_kit import store_of

MakeStore = Callable[..., Store]
DEFAULT = {
    "loss",
    "loss_spread",
    "loss_change",
    "forgetting",
    "self_influence",
    "leverage",
    "unit_leverage",
    "robust_leverage",
    "robust_unit_leverage",
    "latent_distance",
    "robust_latent_distance",
    "latent_isolation",
    "robust_latent_direction",
    "gradient_distance",
    "gradient_isolation",
    "near_duplicate",
    "clump",
}
SELF_INFLUENCES = {"self_influence", "early_self_influence", "late_self_influence", "layer_self_influence"}
COURSES = {"loss_spread", "loss_change", "forgetting"}
OF_PREDICTIONS = {"label_surprise", "label_margin", "confident_doubt", "neighbour_doubt", "label_error"}
NOT_OF_THE_ODD = {
    *SELF_INFLUENCES,
    *COURSES,
    *OF_PREDICTIONS,
    "near_duplicate",
    "clump",
    "contradicting_duplicate",
    "draw_variance",
    "robust_latent_direction",
}
"""Its gradient is not the longest, its loss is the same at both checkpoints, nobody is near it, nothing predicted, and
it is far in a direction in which others are too."""


def computed(store: Store, name: str) -> NDArray[np.float64]:
    return compute_signals(store, [name])[name]


def brute_force_distance(points: NDArray[np.float64], reference: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    distances = np.linalg.norm(points[:, None] - points[None, reference], axis=2)
    distances[reference, np.arange(len(reference))] = np.inf
    return np.asarray(np.sort(distances, axis=1)[:, :k].mean(axis=1))


def test_the_registry_holds_every_signal_under_its_own_name() -> None:
    assert set(SIGNALS) == DEFAULT
    assert all(signal.name == name for name, signal in ALL_SIGNALS.items())


def test_every_signal_says_what_it_means_and_costs_in_one_line() -> None:
    for signal in ALL_SIGNALS.values():
        assert signal.meaning
        assert signal.cost
        assert "\n" not in signal.meaning + signal.cost


@pytest.mark.parametrize("name", sorted(set(ALL_SIGNALS) - NOT_OF_THE_ODD))
def test_every_signal_is_highest_for_the_odd_example(store: Store, name: str) -> None:
    values = computed(store, name)
    assert values.shape == (60,)
    assert values.argmax() == 41


def test_loss_is_the_mean_over_checkpoints(store: Store) -> None:
    expected = (store.losses(0).astype(np.float64) + store.losses(1)) / 2
    np.testing.assert_allclose(computed(store, "loss"), expected)


def test_self_influence_weighs_squared_norms_by_learning_rates(store: Store) -> None:
    expected = 0.1 * store.norms(0).astype(np.float64) ** 2 + 0.01 * store.norms(1).astype(np.float64) ** 2
    np.testing.assert_allclose(computed(store, "self_influence"), expected, rtol=1e-6)


def test_latent_distance_is_the_mean_distance_to_ten_others(store: Store) -> None:
    everyone = np.arange(60)
    latents = [store.latents(t, 0, 60).astype(np.float64) for t in (0, 1)]
    expected = np.mean([brute_force_distance(points, everyone, 10) for points in latents], axis=0)
    np.testing.assert_allclose(computed(store, "latent_distance"), expected, rtol=1e-5)


def test_gradient_distance_is_one_minus_the_cosine_to_ten_others(store: Store) -> None:
    parts = []
    for checkpoint in (0, 1):
        rows = store.unit_sketches(checkpoint, 0, 60).astype(np.float64)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = rows @ rows.T - 9.0 * np.eye(60)
        parts.append(1.0 - np.sort(cosines, axis=1)[:, -10:].mean(axis=1))
    np.testing.assert_allclose(computed(store, "gradient_distance"), np.mean(parts, axis=0), atol=1e-5)


def test_a_large_store_is_measured_against_a_seeded_reference(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "N_REFERENCE", 20)
    chosen = np.sort(np.random.default_rng(0).choice(60, 20, replace=False))
    latents = [store.latents(t, 0, 60).astype(np.float64) for t in (0, 1)]
    expected = np.mean([brute_force_distance(points, chosen, 10) for points in latents], axis=0)
    np.testing.assert_allclose(computed(store, "latent_distance"), expected, rtol=1e-5)


def test_variance_over_draws_is_there_where_it_is_kept(make_store: MakeStore) -> None:
    """The draws' mean squared norm is that of the mean plus 1, plus 7 for the odd example."""
    store = make_store(n_draws=2)
    assert signals_of(store) == [*SIGNALS, "contradicting_duplicate", "draw_variance"]
    values = compute_signals(store)["draw_variance"]
    expected = np.ones(60)
    expected[41] = 7.0
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_variance_over_draws_is_never_below_zero(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(n_draws=2)
    monkeypatch.setattr(Store, "draw_norms", lambda self, checkpoint: np.nextafter(self.norms(checkpoint), 0))
    assert (compute_signals(store, ["draw_variance"])["draw_variance"] == 0).all()


def test_the_loss_course_is_numpy_s(store: Store) -> None:
    losses = np.stack([store.losses(t) for t in (0, 1)]).astype(np.float64)
    np.testing.assert_allclose(computed(store, "loss_spread"), losses.std(axis=0), rtol=1e-12)
    np.testing.assert_allclose(computed(store, "loss_change"), losses[1] - losses[0])
    np.testing.assert_allclose(computed(store, "forgetting"), np.maximum(losses[1] - losses[0], 0.0))


def test_self_influence_is_the_sum_of_its_checkpoints(store: Store) -> None:
    parts = computed(store, "early_self_influence") + computed(store, "late_self_influence")
    np.testing.assert_allclose(parts, computed(store, "self_influence"))


def test_signals_on_request_are_computed_only_when_named(store: Store) -> None:
    assert "isolation_forest" not in compute_signals(store)
    assert computed(store, "isolation_forest").shape == (60,)


def test_what_is_known_is_not_computed_again(store: Store) -> None:
    heard: list[str] = []
    given = {"loss": np.arange(60.0)}
    found = compute_signals(store, ["loss", "loss_change"], heard.append, known=given)
    assert heard == ["loss_change"]
    assert found["loss"] is given["loss"]


def test_what_a_store_lacks_is_named_by_signal(store: Store) -> None:
    assert left_out(store) == {
        "draw_variance": ["draw_norms"],
        "layer_self_influence": ["layer_norms"],
        **{name: ["predictions"] for name in OF_PREDICTIONS},
    }


def test_a_store_of_equal_examples_has_finite_signals_that_are_all_equal(tmp_path: Path) -> None:
    store = store_of(tmp_path / "store", np.ones((2, 40, 8)), losses=np.ones((2, 40)), latents=np.ones((2, 40, 3)))
    for values in compute_signals(store, [name for name in ALL_SIGNALS if name not in left_out(store)]).values():
        assert np.isfinite(values).all()
        assert np.ptp(values) <= 1e-5 * max(np.abs(values).max(), 1.0)


def test_a_signal_that_the_store_does_not_keep_is_no_signal_of_it(store: Store) -> None:
    assert signals_of(store) == list(compute_signals(store)) == [*SIGNALS, "contradicting_duplicate"]
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
    with pytest.raises(UnknownSignalError, match=r"no signal 'lost'. The signals are loss, loss_spread, "):
        compute_signals(store, ["loss", "lost"], heard.append)
    assert heard == []


def test_a_reason_names_the_value_and_never_rounds_a_percentile_up() -> None:
    sentence = SIGNALS["leverage"].reason(41.234, 99.97)
    expected = "leverage 41.2 is above 99.97 % of examples: at single checkpoints few others push the model that way"
    assert sentence == expected
