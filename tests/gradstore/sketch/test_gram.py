"""Inner products and sketches of a sample are the same however few gradients fit into memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradstore.errors import TaskError
from gradstore.sketch import CountSketch, matrix_shape
from gradstore.sketch.gram import Blocks, GradientSample, Products, SketchLengths, products

SHAPES = {"w": (6, 50), "tall": (40, 3), "b": (9,), "conv": (4, 3, 2, 2), "scale": ()}
N = 23


class Counted:
    """Random gradients, and how many were asked for."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        random = torch.Generator().manual_seed(0)
        self.all = {name: torch.randn(N, *shape, generator=random).to(dtype) for name, shape in SHAPES.items()}
        self.count = 0
        parameters = {name: values[0] for name, values in self.all.items()}
        self.sample = GradientSample(N, parameters, self._some)

    def _some(self, rows: range) -> Iterator[dict[str, torch.Tensor]]:
        for row in rows:
            self.count += 1
            yield {name: values[row] for name, values in self.all.items()}

    @property
    def flat(self) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
        """[N, numbers] float64."""
        return torch.cat([values.reshape(N, -1).double() for values in self.all.values()], dim=1).numpy()


def found(gradients: Counted, block_bytes: int, lengths: tuple[int, ...] = (16,)) -> Products:
    blocks = Blocks.within(gradients.sample, block_bytes)
    return products(gradients.sample, SketchLengths(gradients.sample, lengths, seed=1, stream=2), blocks)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n_fitting", [0, 3, 9, N])
def test_products_and_norms_are_those_of_all_gradients_at_once(dtype: torch.dtype, n_fitting: int) -> None:
    gradients = Counted(dtype)
    result = found(gradients, n_fitting * gradients.flat.shape[1] * dtype.itemsize)
    expected = gradients.flat @ gradients.flat.T
    np.testing.assert_allclose(result.gram, expected, rtol=0, atol=1e-12 * expected.max())  # float64 sums
    np.testing.assert_allclose(result.norms, np.linalg.norm(gradients.flat, axis=1), rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(n_examples=st.integers(3, 300), n_fitting=st.integers(0, 400), n_numbers=st.integers(1, 50))
def test_blocks_meet_every_pair_once_within_their_memory(n_examples: int, n_fitting: int, n_numbers: int) -> None:
    sample = GradientSample(n_examples, {"w": torch.zeros(n_numbers)}, lambda rows: [])
    blocks = Blocks.within(sample, n_fitting * n_numbers * 4)
    assert blocks.held + blocks.passing <= max(2, n_fitting)
    met = np.zeros((n_examples, n_examples), dtype=int)
    for held, later in blocks:
        met[held.start : held.stop, held.start : held.stop] += 1
        for others in later:
            assert len(held) <= blocks.held
            assert len(others) <= blocks.passing
            met[held.start : held.stop, others.start : others.stop] += 1
            met[others.start : others.stop, held.start : held.stop] += 1
    assert (met == 1).all()


@pytest.mark.parametrize("n_fitting", [2, 9, N])
def test_the_number_of_gradients_is_known_beforehand(n_fitting: int) -> None:
    gradients = Counted()
    block_bytes = n_fitting * gradients.flat.shape[1] * 4
    found(gradients, block_bytes)
    assert gradients.count == Blocks.within(gradients.sample, block_bytes).n_gradients
    assert (gradients.count == N) == (n_fitting == N)


@pytest.mark.parametrize("lengths", [(4, 8, 32), (5, 10, 15), (32,), (1, 7)])
def test_a_sketch_of_every_length_is_that_of_its_own_projection(lengths: tuple[int, ...]) -> None:
    gradients = Counted(torch.float64)
    sketches = found(gradients, 7 * gradients.flat.shape[1] * 8, lengths).sketches
    assert sorted(sketches) == sorted(lengths)
    for d, sketch in sketches.items():
        buffer = CountSketch(SHAPES, d, 1, stream=2, dtype=torch.float64).buffer(N)
        for name, values in gradients.all.items():
            buffer.add_dense(name, values.reshape(N, *matrix_shape(SHAPES[name])))
        np.testing.assert_allclose(sketch, buffer.result().numpy(), rtol=0, atol=1e-5)  # handed over as float32


def test_half_precision_gradients_are_summed_in_float32() -> None:
    gradients = Counted(torch.bfloat16)
    assert gradients.sample.dtype == torch.float32
    expected = gradients.flat @ gradients.flat.T
    np.testing.assert_allclose(found(gradients, 0).gram, expected, rtol=0, atol=1e-6 * expected.max())


def test_a_gradient_that_is_not_finite_is_refused_by_its_number() -> None:
    gradients = Counted()
    gradients.all["b"][4, 2] = torch.inf
    with pytest.raises(TaskError, match=r"1 of 23 .* \(number 4 of the sample\)"):
        found(gradients, 1 << 20)
