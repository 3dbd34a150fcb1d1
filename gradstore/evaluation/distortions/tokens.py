"""Sequences of tokens. Padding stays where it is: two or more equal tokens at the end, or at the beginning."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gradstore.evaluation.distortions.forms import Distortion, Examples
from gradstore.evaluation.distortions.numbers import held


def shuffled_tokens(examples: Examples, rng: np.random.Generator) -> Distortion:
    """The same tokens in another order."""
    return lambda example, rng: _within(example, rng.permutation)


def noise_tokens(examples: Examples, rng: np.random.Generator) -> Distortion:
    """Tokens that occur in the data, each as likely as any other."""
    seen = np.unique(examples)
    return lambda example, rng: _within(example, lambda text: rng.choice(seen, len(text)))


def repeated(examples: Examples, rng: np.random.Generator) -> Distortion:
    """A third of the text is one token, over and over."""
    return lambda example, rng: _within(example, lambda text: held(text, rng))


def without_padding(example: Examples) -> slice:
    """Where the text stands; nowhere in an example of equal tokens.

    >>> without_padding(np.array([5, 2, 2, 7, 0, 0, 0]))
    slice(0, 4, None)
    """
    changes = np.flatnonzero(np.diff(example)) + 1
    if not len(changes):
        return slice(0, 0)
    start, stop = int(changes[0]), int(changes[-1])
    return slice(start if start > 1 else 0, stop if len(example) - stop > 1 else len(example))


def _within(example: Examples, change: Callable[[Examples], Examples]) -> Examples:
    changed, text = example.copy(), without_padding(example)
    changed[text] = change(example[text])
    return changed
