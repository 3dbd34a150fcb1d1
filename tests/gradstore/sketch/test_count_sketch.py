"""The projection is linear, unbiased, of the variance that theory says, and the same on every path."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradstore.sketch import CountSketch

SHAPES = {"w": (6, 50), "tall": (40, 3), "b": (9,), "conv": (4, 3, 2, 2)}


def sketch(values: dict[str, torch.Tensor], d: int, seed: int) -> torch.Tensor:
    projection = CountSketch(SHAPES, d, seed, dtype=torch.float64)
    buffer = projection.buffer(len(values["b"]))
    for name, grad in values.items():
        buffer.add_dense(name, grad.reshape(len(grad), *({"b": (1, 9), "conv": (4, 12)}.get(name, SHAPES[name]))))
    return buffer.result()


def random_gradients(n: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(n, *shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}


@settings(max_examples=20, deadline=None)
@given(a=st.floats(-3, 3), b=st.floats(-3, 3), d=st.integers(1, 70), seed=st.integers(0, 2**40))
def test_sketching_is_linear(a: float, b: float, d: int, seed: int) -> None:
    x, y = random_gradients(2, 0), random_gradients(2, 1)
    mixed = {name: a * x[name] + b * y[name] for name in SHAPES}
    torch.testing.assert_close(sketch(mixed, d, seed), a * sketch(x, d, seed) + b * sketch(y, d, seed))


def test_outer_products_and_rows_land_where_full_gradients_do() -> None:
    projection = CountSketch(SHAPES, 32, 5, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for name in ("w", "tall"):
        rows, columns = SHAPES[name]
        left = torch.randn(3, rows, generator=generator, dtype=torch.float64)
        right = torch.randn(3, columns, generator=generator, dtype=torch.float64)
        index = torch.randint(0, rows, (3, 4), generator=generator)
        some = torch.randn(3, 4, columns, generator=generator, dtype=torch.float64)
        full = left[:, :, None] * right[:, None, :]
        full = full.scatter_add(1, index[:, :, None].expand_as(some), some)
        pieces, whole = projection.buffer(3), projection.buffer(3)
        pieces.add_outer(name, left, right)
        pieces.add_rows(name, index, some)
        whole.add_dense(name, full)
        torch.testing.assert_close(pieces.result(), whole.result())


def test_inner_products_are_unbiased_and_of_the_variance_of_a_count_sketch() -> None:
    gradients, d, n_seeds = random_gradients(2, 3), 64, 600
    flat = torch.cat([gradients[name].flatten(1) for name in SHAPES], dim=1)
    exact, norms = float(flat[0] @ flat[1]), flat.square().sum(1)
    found = torch.stack([(s := sketch(gradients, d, seed))[0] @ s[1] for seed in range(n_seeds)])
    # Var <= (|x|^2 |y|^2 + <x,y>^2) / d (Weinberger et al. 2009); the mean of 600 has a 600th of it.
    bound = float(norms[0] * norms[1] + exact**2) / d
    assert float(found.var()) < 1.25 * bound
    assert abs(float(found.mean()) - exact) < 4 * (bound / n_seeds) ** 0.5


def test_the_hash_depends_on_seed_and_name_only() -> None:
    alone = CountSketch({"w": SHAPES["w"]}, 32, 5)
    together = CountSketch(SHAPES, 32, 5)
    assert torch.equal(alone.hashes["w"].signs, together.hashes["w"].signs)
    assert (alone.hashes["w"].offsets == together.hashes["w"].offsets).all()
    assert CountSketch(SHAPES, 32, 5).probe() == together.probe() != CountSketch(SHAPES, 32, 6).probe()


def test_signs_are_fair_and_known() -> None:
    signs = CountSketch({"w": (100, 100)}, 32, 0).hashes["w"].signs
    assert abs(float(signs.mean())) < 4 / 100  # four standard errors of 10,000 fair coins
    # Recorded once: stores made by another hash could not be read together with new queries.
    assert CountSketch({"w": (2, 3)}, 8, 1).probe() == "c104ec6c5c364a0e"
