from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float64

from gradstore.errors import ShapeError
from gradstore.influence.tracin import self_influence, tracin_influence

Vector = Float64[np.ndarray, " d"]


def gradient(weights: Vector, inputs: Vector, target: float) -> Vector:
    """Of the loss (w·x - y)²/2."""
    return np.asarray((weights @ inputs - target) * inputs)


def half_square(weights: Vector, inputs: Vector, target: float) -> float:
    return float((weights @ inputs - target) ** 2 / 2)


def relative_residual(learning_rate: float) -> float:
    """Linear model, plain SGD with batch 1, every step a checkpoint that saw one example."""
    random = np.random.default_rng(0)
    inputs, targets, weights = random.standard_normal((30, 5)), random.standard_normal(30), np.zeros(5)
    asked, answer = random.standard_normal(5), 2.0
    loss_before, query_gradients, step_gradients = half_square(weights, asked, answer), [], []
    for x, y in zip(inputs, targets, strict=True):
        query_gradients.append(gradient(weights, asked, answer))
        step_gradients.append(gradient(weights, x, float(y)))
        weights = weights - learning_rate * step_gradients[-1]
    rates = np.full(30, learning_rate)
    total = tracin_influence(np.array(query_gradients)[:, None], np.array(step_gradients)[:, None], rates).sum()
    change = half_square(weights, asked, answer) - loss_before
    return float((total + change) / total)


def test_influences_sum_to_the_loss_change_with_an_error_of_the_order_of_the_learning_rate() -> None:
    residuals = [relative_residual(rate) for rate in (4e-4, 2e-4, 1e-4)]
    assert abs(residuals[-1]) < 0.01
    assert residuals[0] / residuals[1] == pytest.approx(2, rel=0.05)
    assert residuals[1] / residuals[2] == pytest.approx(2, rel=0.05)


def test_a_step_on_a_proponent_lowers_the_query_loss_and_on_an_opponent_raises_it() -> None:
    random = np.random.default_rng(1)
    weights, inputs, targets = random.standard_normal(4), random.standard_normal((20, 4)), random.standard_normal(20)
    examples = np.array([gradient(weights, x, float(y)) for x, y in zip(inputs, targets, strict=True)])
    influence = tracin_influence(examples[None, :1], examples[None], np.ones(1))[0]
    before = half_square(weights, inputs[0], float(targets[0]))
    after = [half_square(weights - 1e-6 * step, inputs[0], float(targets[0])) for step in examples]
    np.testing.assert_array_equal(np.sign(influence), np.sign(before - np.array(after)))


def test_self_influence_is_the_diagonal_of_the_influence_matrix() -> None:
    sketches = np.random.default_rng(2).standard_normal((3, 15, 6))
    rates = np.array([0.1, 0.0, 2.0])
    diagonal = np.diag(tracin_influence(sketches, sketches, rates))
    np.testing.assert_allclose(self_influence(np.linalg.norm(sketches, axis=2), rates), diagonal, rtol=1e-12)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_scaling_the_loss_by_c_scales_self_influence_by_c_squared(seed: int, loss: float, rate: float) -> None:
    random = np.random.default_rng(seed)
    norms, rates = random.exponential(size=(3, 8)), random.exponential(size=3)
    scaled = self_influence(norms * loss, rates * rate)
    np.testing.assert_allclose(scaled, self_influence(norms, rates) * loss**2 * rate, rtol=1e-12)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_row_order_and_checkpoint_order_do_not_matter(seed: int) -> None:
    random = np.random.default_rng(seed)
    queries, examples, rates = random.standard_normal((3, 2, 4)), random.standard_normal((3, 9, 4)), random.random(3)
    rows, checkpoints = random.permutation(9), random.permutation(3)
    influence = tracin_influence(queries, examples, rates)
    shuffled = tracin_influence(queries[checkpoints], examples[checkpoints][:, rows], rates[checkpoints])
    np.testing.assert_allclose(shuffled, influence[:, rows], rtol=1e-10, atol=1e-12)


def test_the_learning_rate_weighs_each_checkpoint() -> None:
    ones = np.ones((2, 1, 3))
    np.testing.assert_allclose(tracin_influence(ones, ones, np.array([0.5, 0.0])), [[1.5]])


def test_float16_sketches_do_not_overflow() -> None:
    large = np.full((1, 1, 2), 3e4, dtype=np.float16)
    assert tracin_influence(large, large, np.ones(1))[0, 0] == pytest.approx(2 * float(large[0, 0, 0]) ** 2)
    assert self_influence(np.full((1, 1), 3e30, np.float32), np.ones(1))[0] == pytest.approx(9e60)


@pytest.mark.parametrize("shapes", [((2, 3, 4), (2, 5, 6)), ((2, 3, 4), (1, 5, 4)), ((3, 4), (5, 4))])
def test_sketches_that_do_not_go_together_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ShapeError, match=r"expected \[checkpoint, query, d_sketch\]"):
        tracin_influence(np.zeros(shapes[0]), np.zeros(shapes[1]), np.ones(2))


def test_norms_of_another_number_of_checkpoints_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"norms have shape \(2, 3\) and learning rates \(3,\)"):
        self_influence(np.ones((2, 3)), np.ones(3))
