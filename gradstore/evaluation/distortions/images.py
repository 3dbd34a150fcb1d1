"""Images: bytes, or numbers within the range of the data; the last two axes are height and width."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int

from gradstore.evaluation.distortions.forms import Distortion, Examples, converter, form_of, value_range


def inverted(examples: Examples, rng: np.random.Generator) -> Distortion:
    """Low for high: 255 - byte, or the same within the range of the data."""
    low, high = value_range(examples)
    return lambda example, rng: high - (example - low)


def noise(examples: Examples, rng: np.random.Generator) -> Distortion:
    """Every value as likely as any other, whatever the example was."""
    if examples.dtype == np.uint8:
        return lambda example, rng: rng.integers(0, 256, example.shape, dtype=np.uint8)
    if examples.dtype.kind != "f":
        seen = np.unique(examples)
        return lambda example, rng: rng.choice(seen, example.shape)
    convert, (low, high) = converter(examples), value_range(examples)
    return lambda example, rng: convert(rng.uniform(float(low), float(high), example.shape))


def rotated(examples: Examples, rng: np.random.Generator) -> Distortion:
    """One of the turns that change the image; one that is not square can only be turned by 180 degrees."""

    def turned(example: Examples, rng: np.random.Generator) -> Examples:
        turns = [np.rot90(example, quarter, axes=(-2, -1)) for quarter in rng.permutation([1, 2, 3])]
        fitting = [turn for turn in turns if turn.shape == example.shape]
        return next((turn for turn in fitting if not np.array_equal(turn, example)), example)

    return turned


def dead_rows(examples: Examples, rng: np.random.Generator) -> Distortion:
    """A third of the height at the lowest value: 0 of bytes."""
    low = value_range(examples)[0]

    def dead(example: Examples, rng: np.random.Generator) -> Examples:
        height = example.shape[-2]
        block = max(height // 3, 1)
        start = rng.integers(0, height - block + 1)
        damaged = example.copy()
        damaged[..., start : start + block, :] = low
        return damaged

    return dead


def permuted(examples: Examples, rng: np.random.Generator) -> Distortion:
    """One order for all, of pixels, steps or features; channels stay together."""
    if form_of(examples.shape[1:], examples.dtype) == "series":
        steps = _order(examples.shape[1], rng)
        return lambda example, rng: example[steps]
    n_axes = min(examples.ndim - 1, 2)
    order = _order(int(np.prod(examples.shape[-n_axes:])), rng)

    def moved(example: Examples, rng: np.random.Generator) -> Examples:
        pixels = example.reshape(*example.shape[: example.ndim - n_axes], -1)
        return pixels[..., order].reshape(example.shape)

    return moved


def _order(n: int, rng: np.random.Generator) -> Int[np.ndarray, " place"]:
    """Another order than theirs, where there are two places or more."""
    order = rng.permutation(n)
    while n > 1 and np.array_equal(order, np.arange(n)):
        order = rng.permutation(n)
    return order
