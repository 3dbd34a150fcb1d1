"""Known contamination: distort some examples of a data set, and remember which.

Detection is judged on rows that are known to be bad. Rows are chosen by the seed alone, and a row that its
distortion would leave as it is (a constant image, rotated) is passed over: a planted row always differs.

What a kind does to one example: `gradstore.evaluation.distortions`. Labels: `gradstore.evaluation.mislabelling`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from gradstore.errors import QueryError, ShapeError
from gradstore.evaluation.distortions import images, numbers, tokens
from gradstore.evaluation.distortions.copies import n_pairs, plant_copies
from gradstore.evaluation.distortions.forms import Distortion, Examples, Form, Make, form_of
from gradstore.evaluation.mislabelling import flip_labels, most_alike_classes

__all__ = ["KINDS", "KINDS_EXPLAINED", "flip_labels", "kinds_for", "most_alike_classes", "plant"]

DUPLICATES = "duplicates"
FOREIGN = "foreign"

KINDS_EXPLAINED: Mapping[str, str] = {
    "inverted": "Light and dark are swapped: each value as far below the top of its range as it was above the bottom.",
    "rotated": "The image is turned by 90, 180 or 270 degrees.",
    "noise": "Every value is drawn at random, whatever the example was.",
    "dead_rows": "A third of the image's rows hold nothing but the lowest value.",
    "permuted": "The pixels, steps or features are in another order, the same for all examples of this kind.",
    FOREIGN: "The example comes from another data set.",
    "shuffled": "Every value is that of another example at the same place: each looks right, together they do not.",
    "scaled": "The example is three times as far from the mean of the data.",
    "spiked": "One feature in twenty, at least one, is ten standard deviations from its mean.",
    "reversed": "The steps run backwards.",
    "dead_steps": "A third of the steps are stuck at one value, as when a sensor hangs.",
    "shuffled_tokens": "The tokens of the text are in a random order.",
    "repeated": "A third of the text is one token, over and over.",
    DUPLICATES: "The example is in the data twice, but for a change too small to see.",
}
"""What is wrong with a planted example, in a sentence for the user."""

KINDS = tuple(KINDS_EXPLAINED)
"""Every kind that `plant` knows."""

_FITTING: Mapping[Form, tuple[str, ...]] = {
    "image": ("inverted", "rotated", "noise", "permuted", "dead_rows", DUPLICATES),
    "series": ("shuffled", "reversed", "scaled", "dead_steps", "permuted", DUPLICATES),
    "table": ("shuffled", "scaled", "spiked", "permuted", DUPLICATES),
    "tokens": ("shuffled_tokens", "noise", "repeated", DUPLICATES),
}
_MAKERS: Mapping[str, Make] = {
    "inverted": images.inverted,
    "rotated": images.rotated,
    "noise": images.noise,
    "dead_rows": images.dead_rows,
    "permuted": images.permuted,
    "shuffled": numbers.shuffled,
    "scaled": numbers.scaled,
    "spiked": numbers.spiked,
    "reversed": numbers.reversed_steps,
    "dead_steps": numbers.dead_steps,
    "shuffled_tokens": tokens.shuffled_tokens,
    "repeated": tokens.repeated,
}
_OF_ONE_VALUE = {"inverted", "noise", "dead_rows", "scaled", "spiked"}
"""What can be done to an example that has a single place; anything else is about several."""


def kinds_for(example_shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[str, ...]:
    """The kinds of contamination that fit such data and need nothing else.

    Raises:
        ShapeError: examples without numbers.

    >>> kinds_for((16,), np.dtype(np.float32))
    ('shuffled', 'scaled', 'spiked', 'permuted', 'duplicates')
    """
    form = form_of(example_shape, dtype)
    places = example_shape[0] if form == "series" else math.prod(example_shape[-2:])
    return tuple(kind for kind in _FITTING[form] if places > 1 or kind in _OF_ONE_VALUE)


def plant(
    examples: Shaped[np.ndarray, "example ..."],
    kind: str,
    n: int,
    seed: int,
    foreign: Shaped[np.ndarray, "other ..."] | None = None,
) -> tuple[Shaped[np.ndarray, "example ..."], Bool[np.ndarray, " example"]]:
    """A copy of `examples` with n bad ones, and the mask that says which.

    Args:
        examples: [N, ...] bytes, whole numbers or floats; `form_of` says what they are taken for.
        kind: one of `KINDS`; `kinds_for` names those that fit. `duplicates` marks n examples in all, the two of each
            of n // 2 pairs, at least one pair: an odd n marks n - 1, and 1 marks 2.
        foreign: what `foreign` plants, each row at most once; rows shaped like those of `examples`.

    Raises:
        QueryError: an unknown kind, or fewer than n rows that this kind would change.
        ShapeError: no numbers, or shapes that this kind cannot distort.

    >>> planted, mask = plant(np.zeros((10, 4, 4), np.uint8), "inverted", n=2, seed=0)
    >>> int(mask.sum()), int(planted[mask].min())
    (2, 255)
    """
    _require_fitting(examples, kind, n)
    rng = np.random.default_rng(seed)
    if kind == DUPLICATES:
        planted, mask = plant_copies(examples, n, rng)
    else:
        planted, mask = _distorted(examples, _distortion(examples, kind, rng, foreign), n, rng)
    if mask.sum() < (2 * n_pairs(n) if kind == DUPLICATES else n):
        others = ", ".join(fit for fit in kinds_for(examples.shape[1:], examples.dtype) if fit != kind)
        raise QueryError(
            f"{kind!r} changes only {mask.sum()} of {len(examples)} examples; {n} were to be planted. "
            f"Plant fewer, or another kind: {others}."
        )
    return planted, mask


def _distorted(
    examples: Examples, distort: Distortion, n: int, rng: np.random.Generator
) -> tuple[Examples, Bool[np.ndarray, " example"]]:
    """The first n rows, in a random order, that this changes; fewer where there are not so many."""
    planted, mask = examples.copy(), np.zeros(len(examples), dtype=bool)
    for row in rng.permutation(len(examples)):
        if mask.sum() == n:
            break
        candidate = distort(examples[row], rng)
        if not np.array_equal(candidate, examples[row]):
            planted[row], mask[row] = candidate, True
    return planted, mask


def _distortion(examples: Examples, kind: str, rng: np.random.Generator, foreign: Examples | None) -> Distortion:
    """What turns one example into a planted one; draws what all planted rows share."""
    if kind == FOREIGN:
        return _rows_of(foreign, examples, rng)
    if kind == "noise" and form_of(examples.shape[1:], examples.dtype) == "tokens":
        return tokens.noise_tokens(examples, rng)
    return _MAKERS[kind](examples, rng)


def _rows_of(foreign: Examples | None, examples: Examples, rng: np.random.Generator) -> Distortion:
    """Rows of another array, each at most once."""
    if foreign is None or foreign.shape[1:] != examples.shape[1:] or foreign.dtype != examples.dtype:
        found = "none" if foreign is None else f"{foreign.dtype} {foreign.shape}"
        raise ShapeError(f"'foreign' plants {examples.dtype} rows shaped {examples.shape[1:]}; found {found}.")
    rows = iter(rng.permutation(len(foreign)))

    def taken(example: Examples, rng: np.random.Generator) -> Examples:
        row = next(rows, None)
        return example if row is None else foreign[row]

    return taken


def _require_fitting(examples: Examples, kind: str, n: int) -> None:
    if kind not in KINDS:
        raise QueryError(f"{kind!r} is no kind of contamination. Use one of: {', '.join(KINDS)}.")
    if not (len(examples) and 0 <= n <= len(examples)):
        raise QueryError(f"Cannot plant {n} examples among {len(examples)}; n must be between 0 and {len(examples)}.")
    form, n_axes = form_of(examples.shape[1:], examples.dtype), examples.ndim - 1
    lacking = {
        "images [N, H, W] or [N, C, H, W]": kind in ("rotated", "dead_rows") and n_axes < 2,
        "series [N, steps] or [N, steps, channels]": kind in ("reversed", "dead_steps") and n_axes > 2,
        "whole numbers [N, tokens]": kind in ("shuffled_tokens", "repeated") and form != "tokens",
        "numbers that say how much, not tokens": kind in ("shuffled", "scaled", "spiked") and form == "tokens",
    }
    for needed in (words for words, holds in lacking.items() if holds):
        fitting = ", ".join(kinds_for(examples.shape[1:], examples.dtype))
        raise ShapeError(f"{kind!r} needs {needed}; found {examples.dtype} {examples.shape}. These fit: {fitting}.")
