"""The trusted set, the latent space that it spans, and duplicates: against numpy on the whole arrays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gradstore.ranking.combine import tail_sum
from gradstore.ranking.signals import compute_signals, latent_space
from gradstore.ranking.signals.latent_space import LatentSpace
from gradstore.ranking.signals.latent_space import latent_space as space_of
from gradstore.ranking.signals.trusted import FIRST_ROUND, trusted_examples
from gradstore.store import Store
from gradstore.testing.store_kit import store_of

N, D = 300, 4


def store_with(folder: Path, latents: NDArray[np.float64]) -> Store:
    rng = np.random.default_rng(1)
    n = latents.shape[1]
    gradients, losses = rng.normal(size=(2, n, 8)), rng.uniform(1.0, 2.0, (2, n))
    return store_of(folder, gradients, losses=losses, latents=latents, shard_rows=64)


@pytest.fixture
def latents() -> NDArray[np.float64]:
    spreads = np.array([[[5.0, 1.0, 1.0, 0.1]], [[2.0, 2.0, 0.3, 0.3]]])
    return np.asarray(np.random.default_rng(0).normal(size=(2, N, D)) * spreads + 7.0)


def scaled_by_hand(latents: NDArray[np.float64], trusted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The space's rows before they are whitened."""
    parts = [x - x[trusted].mean(axis=0) for x in latents]
    return np.concatenate([x / np.sqrt(np.square(x[trusted]).mean()) for x in parts], axis=1)


def by_hand(latents: NDArray[np.float64], trusted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The space's rows, up to a rotation."""
    joint = scaled_by_hand(latents, trusted)
    covariance = joint[trusted].T @ joint[trusted] / trusted.sum()
    damped = covariance + 1e-2 * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(damped)
    return np.asarray(joint @ vectors / np.sqrt(values))


def nearest(
    points: NDArray[np.float64], trusted: NDArray[np.bool_], k: int = 10
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    distances[:, ~trusted] = np.inf
    order = np.argsort(distances, axis=1)[:, :k]
    return np.take_along_axis(distances, order, axis=1), order


def test_three_quarters_are_trusted_those_that_the_first_round_suspects_least(
    tmp_path: Path, latents: NDArray[np.float64]
) -> None:
    first = compute_signals(store_with(tmp_path / "s", latents), FIRST_ROUND)
    trusted = trusted_examples(first)
    scores = tail_sum(first)
    assert int(trusted.sum()) == 225
    assert scores[trusted].max() < scores[~trusted].min()


def test_everyone_is_trusted_where_all_are_equal_or_alone() -> None:
    assert trusted_examples({"loss": np.zeros(50)}).all()
    assert trusted_examples({"loss": np.zeros(1)}).all()


def test_robust_latent_distance_and_isolation_are_the_definition_s(
    tmp_path: Path, latents: NDArray[np.float64]
) -> None:
    found = compute_signals(store_with(tmp_path / "s", latents))
    trusted = trusted_examples({name: found[name] for name in FIRST_ROUND})
    points = by_hand(latents.astype(np.float32).astype(np.float64), trusted)
    distances, order = nearest(points, trusted)
    own = distances.mean(axis=1)
    np.testing.assert_allclose(found["robust_latent_distance"], nearest(points, trusted, 30)[0].mean(axis=1), rtol=1e-3)
    np.testing.assert_allclose(found["latent_isolation"], own / own[order].mean(axis=1), rtol=1e-3)


def test_gradient_isolation_is_the_ratio_of_cosine_distances(tmp_path: Path, latents: NDArray[np.float64]) -> None:
    store = store_with(tmp_path / "s", latents)
    found = compute_signals(store)
    trusted = trusted_examples({name: found[name] for name in FIRST_ROUND})
    ratios = []
    for checkpoint in (0, 1):
        rows = store.unit_sketches(checkpoint, 0, N).astype(np.float64)
        distances, order = nearest(rows / np.linalg.norm(rows, axis=1, keepdims=True), trusted)
        own = np.square(distances).mean(axis=1)
        ratios.append(own / own[order].mean(axis=1))
    np.testing.assert_allclose(found["gradient_isolation"], np.mean(ratios, axis=0), rtol=1e-3)


def test_equal_examples_are_isolated_by_no_signal(tmp_path: Path) -> None:
    found = compute_signals(store_with(tmp_path / "s", np.ones((2, N, D))), ["latent_isolation"])
    np.testing.assert_array_equal(found["latent_isolation"], 1.0)


def test_robust_latent_direction_is_half_the_mean_squared_distance_of_directions(
    tmp_path: Path, latents: NDArray[np.float64]
) -> None:
    found = compute_signals(store_with(tmp_path / "s", latents))
    trusted = trusted_examples({name: found[name] for name in FIRST_ROUND})
    rows = scaled_by_hand(latents.astype(np.float32).astype(np.float64), trusted)
    distances, _ = nearest(rows / np.linalg.norm(rows, axis=1, keepdims=True), trusted)
    expected = np.square(distances).mean(axis=1) / 2
    np.testing.assert_allclose(found["robust_latent_direction"], expected, rtol=1e-3, atol=1e-6)


def test_what_lies_near_the_middle_in_a_direction_of_its_own_is_seen_by_its_direction(
    tmp_path: Path, latents: NDArray[np.float64]
) -> None:
    latents[:, :, 0] = 7.0 + 20.0 * np.sign(latents[:, :, 0] - 7.0)  # two ways, and a little to the sides
    latents[:, 0] = 7.0 + np.array([0.0, 3.0, 0.0, 0.0])
    found = compute_signals(store_with(tmp_path / "s", latents), ["robust_latent_direction"])
    assert found["robust_latent_direction"].argmax() == 0


def test_a_bad_kind_is_far_from_all_that_is_trusted_though_near_itself(
    tmp_path: Path, latents: NDArray[np.float64]
) -> None:
    """Twenty examples on one spot, with losses that the first round sees."""
    latents[:, :20] = latents[:, :1] * 0.01 + np.array([0.0, 0.0, 0.0, 40.0])
    store = store_of(
        tmp_path / "s",
        np.random.default_rng(1).normal(size=(2, N, 8)) * np.where(np.arange(N) < 20, 5.0, 1.0)[:, None],
        losses=np.where(np.arange(N) < 20, 50.0, 1.0) * np.ones((2, 1)),
        latents=latents,
    )
    found = compute_signals(store, ["latent_distance", "robust_latent_distance"])
    robust, plain = found["robust_latent_distance"], found["latent_distance"]
    assert robust[:20].min() > robust[20:].max()
    assert plain[:20].max() < np.median(plain)


def test_wide_latents_are_folded_and_distances_kept_on_average(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    store = store_with(tmp_path / "s", rng.normal(size=(2, N, 96)))
    whole = _scaled(space_of(store, np.ones(N, dtype=bool)))
    monkeypatch.setattr(latent_space, "WIDEST", 64)
    folded = _scaled(space_of(store, np.ones(N, dtype=bool)))
    assert folded.shape == (N, 64)
    np.testing.assert_allclose(np.square(folded).sum(), np.square(whole).sum(), rtol=0.05)


def _scaled(space: LatentSpace) -> NDArray[np.float32]:
    return space.not_whitened().rows(0, N)


def test_a_copy_is_near_by_five_orders_and_a_near_copy_by_as_many_as_it_is(
    tmp_path: Path, latents: NDArray[np.float64]
) -> None:
    latents[:, 1], latents[:, 3] = latents[:, 0], latents[:, 2] + 1e-3
    near = compute_signals(store_with(tmp_path / "s", latents), ["near_duplicate"])["near_duplicate"]
    np.testing.assert_allclose(near[:2], 5.0)
    assert (near[2:4] > 1.5).all()
    assert near[4:].max() < 1.5


def test_nearness_is_the_ratio_of_the_tenth_distance_to_the_first(tmp_path: Path, latents: NDArray[np.float64]) -> None:
    narrow = latents[:, :, :3]  # six dimensions in all: the tree's neighbours are the true ones
    near = compute_signals(store_with(tmp_path / "s", narrow), ["near_duplicate"])["near_duplicate"]
    parts = [x - x.mean(axis=0) for x in narrow.astype(np.float32).astype(np.float64)]
    joint = np.concatenate([x / np.sqrt(np.square(x).mean()) for x in parts], axis=1)
    distances, _ = nearest(joint, np.ones(N, dtype=bool))
    np.testing.assert_allclose(near, np.log10(distances[:, 9] / distances[:, 0]), rtol=1e-3, atol=1e-3)


def test_many_copies_of_one_example_are_all_found(tmp_path: Path, latents: NDArray[np.float64]) -> None:
    latents[:, :9] = latents[:, :1]
    near = compute_signals(store_with(tmp_path / "s", latents), ["near_duplicate"])["near_duplicate"]
    assert (near[:9] == 5.0).all()
