"""Rows of tables, and series of steps: what is odd about them is how their numbers go together."""

from __future__ import annotations

import numpy as np

from gradstore.evaluation.distortions.forms import Distortion, Examples, converter

FACTOR = 3.0
FAR = 10.0
_ONE_IN = 20


def shuffled(examples: Examples, rng: np.random.Generator) -> Distortion:
    """Every number from another example, at its own place: marginals are kept, dependence is gone."""
    flat = examples.reshape(len(examples), -1)
    places = np.arange(flat.shape[1])
    return lambda example, rng: flat[rng.integers(0, len(flat), len(places)), places].reshape(example.shape)


def scaled(examples: Examples, rng: np.random.Generator) -> Distortion:
    """Three times as far from the mean of the data, in the same direction."""
    mean, convert = examples.mean(axis=0, dtype=np.float64), converter(examples)
    return lambda example, rng: convert(mean + FACTOR * (example - mean))


def spiked(examples: Examples, rng: np.random.Generator) -> Distortion:
    """One number in twenty, at least one, ten standard deviations off; what never varies stays."""
    convert, mean = converter(examples), examples.mean(axis=0, dtype=np.float64).reshape(-1)
    deviation = examples.std(axis=0, dtype=np.float64).reshape(-1)
    varied = np.flatnonzero(deviation)
    n_spikes = min(-(-len(mean) // _ONE_IN), len(varied))

    def with_spikes(example: Examples, rng: np.random.Generator) -> Examples:
        at = rng.permutation(varied)[:n_spikes]
        values = example.astype(np.float64).reshape(-1)
        values[at] = mean[at] + FAR * deviation[at] * rng.choice([-1.0, 1.0], n_spikes)
        return convert(values.reshape(example.shape))

    return with_spikes


def reversed_steps(examples: Examples, rng: np.random.Generator) -> Distortion:
    """The last step first."""
    return lambda example, rng: example[::-1]


def dead_steps(examples: Examples, rng: np.random.Generator) -> Distortion:
    """A third of the steps, at least two, stuck at the first of them, like a sensor that hangs."""
    return held


def held(example: Examples, rng: np.random.Generator) -> Examples:
    """The same of one example, or part of one; unchanged where there are not two steps."""
    block = max(len(example) // 3, 2)
    if len(example) < block:
        return example
    start = rng.integers(0, len(example) - block + 1)
    stuck = example.copy()
    stuck[start : start + block] = example[start]
    return stuck
