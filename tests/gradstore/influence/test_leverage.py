"""Leverage against float64 brute force and the closed forms of regression."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from gradstore.errors import QueryError
from gradstore.influence.leverage import joint_leverage, leverage, unit_leverage
from gradstore.influence.whitening import whitened_sq_norms

FLOAT16 = 2.0**-11
"""Relative rounding of a stored sketch."""


@dataclass(frozen=True)
class MemoryStore:
    """Gradients in memory, read as the store gives them; `block` caps the rows of a block."""

    gradients: NDArray[np.float64]
    """[checkpoint, example, d_sketch]"""
    block: int = 4096

    @property
    def n_checkpoints(self) -> int:
        return int(self.gradients.shape[0])

    @property
    def n_examples(self) -> int:
        return int(self.gradients.shape[1])

    @property
    def d_sketch(self) -> int:
        return int(self.gradients.shape[2])

    def norms(self, checkpoint: int) -> NDArray[np.float32]:
        return np.asarray(np.linalg.norm(self.gradients[checkpoint], axis=1), dtype=np.float32)

    def unit_sketches(self, checkpoint: int, start: int, stop: int) -> NDArray[np.float16]:
        rows = self.gradients[checkpoint, start:stop]
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        unit = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
        return np.asarray(unit, dtype=np.float16)

    def blocks(self, rows: int = 4096) -> Iterator[tuple[int, int]]:
        for start in range(0, self.n_examples, min(rows, self.block)):
            yield start, min(start + min(rows, self.block), self.n_examples)

    def stored(self, checkpoint: int) -> NDArray[np.float64]:
        """The gradients as they come back: rounded."""
        unit = self.unit_sketches(checkpoint, 0, self.n_examples).astype(np.float64)
        return unit * self.norms(checkpoint)[:, None].astype(np.float64)


def random_store(n: int = 200, k: int = 12, checkpoints: int = 3, seed: int = 0, block: int = 64) -> MemoryStore:
    """Correlated gradients of unequal size, with a spectrum that falls by a factor of a hundred."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(checkpoints, k, k)) * np.geomspace(1.0, 0.01, k)[:, None]
    sizes = rng.lognormal(size=(checkpoints, n, 1)) * np.array([1.0, 7.0, 0.02])[:checkpoints, None, None]
    return MemoryStore((rng.normal(size=(checkpoints, n, k)) @ mixing) * sizes, block)


def brute_force(rows: NDArray[np.float64], damping: float) -> NDArray[np.float64]:
    second_moment = rows.T @ rows / len(rows)
    ridge = damping * np.trace(second_moment) / len(second_moment)
    inverse = np.linalg.inv(second_moment + ridge * np.eye(len(second_moment)))
    return np.asarray(np.einsum("nk,kl,nl->n", rows, inverse, rows))


def scaled(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1).mean())


def directions(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


ALL_KINDS = pytest.mark.parametrize("kind", [leverage, unit_leverage, joint_leverage])
Kind = Callable[..., NDArray[np.float64]]


@pytest.mark.parametrize("damping", [1e-3, 1e-1, 10.0])
def test_leverage_is_the_sum_of_brute_force_over_checkpoints(damping: float) -> None:
    store = random_store()
    expected = sum(brute_force(store.stored(t), damping) for t in range(3))
    np.testing.assert_allclose(leverage(store, damping=damping), expected, rtol=1e-3)


def test_joint_leverage_is_brute_force_on_sketches_side_by_side() -> None:
    store = random_store()
    joint = np.concatenate([scaled(store.stored(t)) for t in range(3)], axis=1)
    np.testing.assert_allclose(joint_leverage(store), brute_force(joint, 1e-3), rtol=1e-3)


def test_unit_leverage_is_brute_force_on_directions() -> None:
    store = random_store()
    expected = sum(brute_force(directions(store.stored(t)), 1e-3) for t in range(3))
    np.testing.assert_allclose(unit_leverage(store), expected, rtol=1e-3)


def test_float32_holds_four_digits_on_a_steep_spectrum_at_the_default_damping() -> None:
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.normal(size=(96, 96)))[0]
    rows = (rng.normal(size=(1000, 96)) * np.geomspace(1.0, 1e-4, 96)) @ turn
    found = whitened_sq_norms(lambda: iter([rows.astype(np.float32)]), 1000, 96, 1e-3)
    np.testing.assert_allclose(found, brute_force(rows, 1e-3), rtol=1e-4)


def test_without_damping_the_mean_leverage_is_the_width() -> None:
    store = MemoryStore(np.random.default_rng(0).normal(size=(3, 200, 12)))
    assert leverage(store, damping=0.0).mean() == pytest.approx(3 * 12, rel=1e-5)
    assert joint_leverage(store, damping=0.0).mean() == pytest.approx(36, rel=1e-5)


def test_the_mean_leverage_is_the_effective_dimension() -> None:
    store = random_store(checkpoints=1)
    rows = store.stored(0)
    eigenvalues = np.linalg.eigvalsh(rows.T @ rows / len(rows))
    expected = np.sum(eigenvalues / (eigenvalues + 0.05 * eigenvalues.mean()))
    assert leverage(store, damping=0.05).mean() == pytest.approx(expected, rel=1e-4)


def test_without_damping_an_invertible_map_of_the_gradients_changes_nothing() -> None:
    rng = np.random.default_rng(1)
    gradients = rng.normal(size=(1, 200, 12))
    left, right = (np.linalg.qr(rng.normal(size=(12, 12)))[0] for _ in range(2))
    mapped = gradients @ (left * np.geomspace(0.3, 3.0, 12)) @ right
    found, expected = leverage(MemoryStore(mapped), damping=0.0), leverage(MemoryStore(gradients), damping=0.0)
    np.testing.assert_allclose(found, expected, rtol=10 * FLOAT16)  # the map's condition number is 10


@ALL_KINDS
@pytest.mark.parametrize("factor", [1e-18, 1e18])
def test_the_size_of_a_checkpoints_gradients_does_not_matter(kind: Kind, factor: float) -> None:
    store = random_store()
    sized = MemoryStore(store.gradients * np.array([1.0, factor, 1.0])[:, None, None])
    np.testing.assert_allclose(kind(sized), kind(store), rtol=2e-3)


def test_unit_leverage_does_not_see_magnitude() -> None:
    store = random_store()
    sizes = np.random.default_rng(3).lognormal(size=(3, 200, 1))
    np.testing.assert_allclose(unit_leverage(MemoryStore(store.gradients * sizes)), unit_leverage(store), rtol=1e-2)


@ALL_KINDS
@pytest.mark.parametrize("block", [17, 200])
def test_blocks_of_any_length_give_the_same_leverage(kind: Kind, block: int) -> None:
    store = random_store()
    np.testing.assert_allclose(kind(MemoryStore(store.gradients, block)), kind(store), rtol=1e-3)


@ALL_KINDS
def test_a_zero_gradient_has_no_leverage(kind: Kind) -> None:
    gradients = random_store().gradients.copy()
    gradients[:, 17] = 0.0
    scores = kind(MemoryStore(gradients))
    assert scores[17] == 0.0
    assert (np.delete(scores, 17) > 0).all()


@ALL_KINDS
def test_a_checkpoint_without_gradients_adds_nothing(kind: Kind) -> None:
    store = random_store(checkpoints=1)
    silent = np.concatenate([store.gradients, np.zeros_like(store.gradients)])
    # Twice as wide with the same trace: the joint mean diagonal, and so the damping, is half as large.
    damping = 2e-3 if kind is joint_leverage else 1e-3
    np.testing.assert_allclose(kind(MemoryStore(silent), damping=damping), kind(store), rtol=1e-3)


@ALL_KINDS
def test_without_any_gradient_all_leverages_are_zero(kind: Kind) -> None:
    assert kind(MemoryStore(np.zeros((2, 5, 4)))).tolist() == [0.0] * 5


@pytest.mark.parametrize("n", [1, 3, 5, 6, 11])
def test_few_examples_are_whitened_as_brute_force_says(n: int) -> None:
    store = random_store(n=n, k=12)
    np.testing.assert_allclose(
        leverage(store), sum(brute_force(store.stored(t), 1e-3) for t in range(3)), rtol=1e-3, atol=1e-6
    )
    joint = np.concatenate([scaled(store.stored(t)) for t in range(3)], axis=1)
    np.testing.assert_allclose(joint_leverage(store), brute_force(joint, 1e-3), rtol=1e-3, atol=1e-6)


def test_two_equal_examples_share_their_leverage() -> None:
    gradients = np.repeat(random_store(n=2, k=12, checkpoints=1).gradients, 2, axis=1)
    np.testing.assert_allclose(leverage(MemoryStore(gradients), damping=1e-9), 2.0, rtol=1e-4)


@ALL_KINDS
def test_damping_makes_fewer_examples_than_dimensions_work(kind: Kind) -> None:
    scores = kind(random_store(n=5, k=12))
    assert np.isfinite(scores).all()
    assert scores.mean() <= 3 * 5


def test_a_lone_direction_has_more_leverage_than_a_large_but_common_one() -> None:
    rng = np.random.default_rng(0)
    gradients = np.zeros((1, 300, 8))
    gradients[0, :, 0] = rng.normal(size=300)
    gradients[0, 5, 0] = 8.0
    gradients[0, 9, 3] = 0.5
    assert leverage(MemoryStore(gradients)).argmax() == 9


def test_a_fold_as_wide_as_the_sketches_changes_nothing() -> None:
    store = random_store()
    np.testing.assert_allclose(joint_leverage(store, joint_width=36), joint_leverage(store), rtol=1e-6)


@pytest.mark.parametrize("width", [30, 24, 7])
def test_without_damping_a_fold_has_the_mean_leverage_of_its_width(width: int) -> None:
    store = MemoryStore(np.random.default_rng(0).normal(size=(3, 200, 12)))
    assert joint_leverage(store, joint_width=width, damping=0.0).mean() == pytest.approx(width, rel=1e-5)


def test_a_fold_still_finds_lone_directions_of_a_low_rank_set() -> None:
    rng = np.random.default_rng(0)
    basis, strange = rng.normal(size=(4, 6, 64)), rng.normal(size=(4, 10, 64))
    gradients = np.concatenate([rng.normal(size=(4, 390, 6)) @ basis, strange], axis=1)
    scores = joint_leverage(MemoryStore(gradients), joint_width=128)
    assert set(np.argsort(-scores)[:10]) == set(range(390, 400))


@pytest.mark.parametrize("n", [1, 5, 9])
def test_no_damping_and_too_few_gradients_is_refused_with_a_damping_to_use(n: int) -> None:
    with pytest.raises(QueryError, match=r"Use damping of 1e-6 or more \(0\.001 is the default\)"):
        leverage(random_store(n=n, k=12), damping=0.0)


def test_negative_damping_is_refused() -> None:
    with pytest.raises(QueryError, match=r"damping -1\.0"):
        leverage(random_store(), damping=-1.0)


def test_gradients_that_are_not_finite_are_refused() -> None:
    gradients = random_store().gradients.copy()
    gradients[1, 3] = np.nan
    with pytest.raises(QueryError, match="finite gradients"):
        leverage(MemoryStore(gradients))
