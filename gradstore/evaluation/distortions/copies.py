"""Near copies: examples that occur twice, with a change so small that only a comparison of bytes sees it."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from gradstore.evaluation.distortions.forms import Distortion, Examples, converter, form_of, value_range
from gradstore.evaluation.distortions.tokens import without_padding

_ONE_IN = 100
_SHIFT = 0.01


def plant_copies(examples: Examples, n: int, rng: np.random.Generator) -> tuple[Examples, Bool[np.ndarray, " example"]]:
    """Near copies of `n_pairs(n)` examples in the place of as many others; both of each pair are marked.

    Fewer where the rows do not go round: no row is in two pairs, and a copy differs from what stood in its place.
    """
    planted, mask = examples.copy(), np.zeros(len(examples), dtype=bool)
    rows, nudge = rng.permutation(len(examples)).tolist(), _nudged(examples)
    while len(rows) > 1 and mask.sum() < 2 * n_pairs(n):
        source, place = rows.pop(), rows.pop()
        copy = nudge(examples[source], rng)
        if not (np.array_equal(copy, examples[source]) or np.array_equal(copy, examples[place])):
            planted[place] = copy
            mask[[source, place]] = True
    return planted, mask


def n_pairs(n: int) -> int:
    """How many pairs n examples in all are: half as many, at least one; none for none.

    >>> [n_pairs(n) for n in (0, 1, 4, 5)]
    [0, 1, 2, 2]
    """
    return max(n // 2, min(n, 1))


def _nudged(examples: Examples) -> Distortion:
    """One value in a hundred, at least one, changes as little as the dtype can tell, or hardly more.

    A whole number by one; a float by a hundredth of the standard deviation at its place; a token becomes another.
    """
    if form_of(examples.shape[1:], examples.dtype) == "tokens":
        return _mistyped(examples)
    convert, (low, high), whole = converter(examples), value_range(examples), examples.dtype.kind != "f"
    spread = np.ones(examples[0].size) if whole else examples.std(axis=0, dtype=np.float64).reshape(-1)
    places = np.flatnonzero(spread) if spread.any() else np.arange(spread.size)

    def near(example: Examples, rng: np.random.Generator) -> Examples:
        at = rng.permutation(places)[: -(-example.size // _ONE_IN)]
        values = example.reshape(-1).copy()
        steps = 1.0 if whole else np.maximum(_SHIFT * spread[at], np.spacing(np.abs(values[at])))
        inwards = np.where(values[at] - low > high - values[at], -1.0, 1.0)  # the range of the data stays
        values[at] = convert(values[at] + inwards * steps)
        return values.reshape(example.shape)

    return near


def _mistyped(examples: Examples) -> Distortion:
    """One token in a hundred of the text becomes another that the data hold."""
    seen = np.unique(examples)

    def near(example: Examples, rng: np.random.Generator) -> Examples:
        text = np.arange(len(example))[without_padding(example)]
        at = rng.permutation(text)[: -(-len(text) // _ONE_IN)]
        copy = example.copy()
        places = np.searchsorted(seen, copy[at])
        copy[at] = seen[(places + rng.integers(1, max(len(seen), 2), len(at))) % len(seen)]
        return copy

    return near
