"""The projection is unbiased, and its variance is what theory says: at most an ordinary count sketch's.

A sketch is `(Sx)_j = sum_a s_a x_a [h(a) = j]`, with independent fair signs s. Hence

    <Sx, Sy> = <x, y> + sum over pairs a < b that collide, h(a) = h(b), of s_a s_b (x_a y_b + x_b y_a)

The signs s_a s_b of different pairs are uncorrelated and of mean 0, so `E <Sx, Sy> = <x, y>` and

    Var <Sx, Sy> = sum over pairs a < b of P(a and b collide) (x_a y_b + x_b y_a)²

An ordinary count sketch (Charikar et al. 2002; Weinberger et al. 2009) has P = 1/d for every pair:

    Var = (|x|² |y|² + <x, y>² - 2 sum_a x_a² y_a²) / d  <=  (|x|² |y|² + <x, y>²) / d

The row-offset sketch puts coordinate c of row r at (offset_r + c) mod d, with offsets uniform on 0 … d - 1 and
independent between rows. So P = 1/d between rows; within a row P is 1 where the two columns are equal mod d, else 0.
While rows are no longer than d nothing within a row collides. All terms are squares, so leaving some out only makes
the sum smaller: the variance is at most an ordinary count sketch's. In rows longer than d columns that are d apart
always collide, and the bound holds for values in random order only, not for every x and y; the sum above still does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradstore.sketch import CountSketch, matrix_shape

Array = np.ndarray[Any, np.dtype[np.float64]]
Shapes = dict[str, tuple[int, ...]]
N_SEEDS, N_PAIRS = 120, 64
FITTING: Shapes = {"wide": (3, 8), "tall": (8, 2), "bias": (5,)}
LONG: Shapes = {"wide": (3, 21), "bias": (13,)}

numbers = st.integers(0, 2**30)


def vectors(shapes: Shapes, seed: int) -> tuple[Array, Array]:
    """N_PAIRS of x and y, [pair, number]: correlated, and of very unequal size, so that single coordinates matter."""
    rng, size = np.random.default_rng(seed), sum(int(np.prod(shape)) for shape in shapes.values())
    x, noise = rng.normal(size=(2, N_PAIRS, size)) * np.exp(rng.normal(size=size))
    return x, rng.uniform(-1, 1, size=(N_PAIRS, 1)) * x + noise


def sketched(shapes: Shapes, flat: Array, d: int, seed: int, stream: int = 0) -> Array:
    """Sketches of flat gradients."""
    buffer, start = CountSketch(shapes, d, seed, stream=stream, dtype=torch.float64).buffer(len(flat)), 0
    for name, shape in shapes.items():
        part = flat[:, start : start + int(np.prod(shape))]
        buffer.add_dense(name, torch.from_numpy(part.copy()).reshape(len(flat), *matrix_shape(shape)))
        start += part.shape[1]
    found: Array = buffer.result().numpy()
    return found


def errors(shapes: Shapes, x: Array, y: Array, d: int, first_seed: int, stream: int = 0) -> Array:
    """<Sx, Sy> - <x, y> of every pair, [projection, pair], for independent projections."""
    exact = (x * y).sum(1)
    seeds = range(first_seed, first_seed + N_SEEDS)
    both = (np.split(sketched(shapes, np.concatenate([x, y]), d, seed, stream), 2) for seed in seeds)
    return np.stack([(sx * sy).sum(1) - exact for sx, sy in both])


def collisions(shapes: Shapes, d: int) -> Array:
    """P(a and b collide), 0 on the diagonal. A row is a line along the longer side of a parameter's matrix."""
    lines, columns = [], []
    for number, shape in enumerate(shapes.values()):
        rows, width = matrix_shape(shape)
        row, column = np.divmod(np.arange(rows * width), width)
        row, column = (column, row) if rows > width else (row, column)
        lines.append(1000 * number + row)
        columns.append(column % d)
    line, column = np.concatenate(lines), np.concatenate(columns)
    same_line, same_column = line[:, None] == line, column[:, None] == column
    return np.where(same_line, same_column & ~np.eye(len(line), dtype=bool), 1 / d)


def variance(x: Array, y: Array, probability: Array) -> Array:
    """Of every pair of vectors: the sum over pairs of coordinates above."""
    cross = x[:, :, None] * y[:, None, :]
    squares = np.triu(cross + cross.swapaxes(1, 2), k=1) ** 2
    return np.asarray((squares * probability).sum((1, 2)))


def within(found: Array, expected: float) -> bool:
    """Whether the mean of independent numbers is `expected`, to five of its standard errors."""
    return bool(abs(found.mean() - expected) < 5 * found.std(ddof=1) / np.sqrt(len(found)))


@pytest.mark.parametrize("shapes", [FITTING, LONG], ids=["rows fit", "rows longer than d"])
@settings(max_examples=4, deadline=None, derandomize=True)  # always the same dice
@given(seed=numbers, d=st.integers(8, 12))
def test_inner_products_are_unbiased_and_vary_as_colliding_pairs_do(shapes: Shapes, seed: int, d: int) -> None:
    x, y = vectors(shapes, seed)
    standardised = errors(shapes, x, y, d, seed) / np.sqrt(variance(x, y, collisions(shapes, d)))
    assert within(standardised.mean(axis=1), 0.0)
    assert within((standardised**2).mean(axis=1), 1.0)


@settings(max_examples=20, deadline=None)
@given(seed=numbers, d=st.integers(8, 64))
def test_the_variance_is_at_most_that_of_an_ordinary_count_sketch(seed: int, d: int) -> None:
    x, y = vectors(FITTING, seed)
    ordinary = variance(x, y, np.full((x.shape[1], x.shape[1]), 1 / d))
    bound = ((x**2).sum(1) * (y**2).sum(1) + (x * y).sum(1) ** 2) / d
    np.testing.assert_allclose(ordinary, bound - 2 * (x**2 * y**2).sum(1) / d, rtol=0, atol=1e-12 * bound.max())
    assert (variance(x, y, collisions(FITTING, d)) <= ordinary).all()


def test_a_row_no_longer_than_the_sketch_keeps_its_norm() -> None:
    shapes: Shapes = {"bias": (8,)}
    x, _ = vectors(shapes, 0)
    for seed in range(5):
        np.testing.assert_allclose((sketched(shapes, x, 8, seed) ** 2).sum(1), (x**2).sum(1), rtol=1e-12)


def test_projections_of_two_checkpoints_err_independently() -> None:
    x, y = vectors(FITTING, 0)
    first, second = (errors(FITTING, x, y, 8, 0, stream) for stream in (0, 1))
    assert within((first * second / variance(x, y, collisions(FITTING, 8))).mean(axis=1), 0.0)
