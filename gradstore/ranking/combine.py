"""One score from several signals: how improbable their values are together, and the evidence of copies and clumps.

Why improbabilities: signals come in units that cannot be added, and a bad example is often extreme in one of them and
ordinary in the others. What a signal says of an example is -log of the share that its bulk lets one expect above it
(`gradstore.ranking.null`), at most 20. Their power mean lets one loud signal be heard without letting it drown the
rest: at exponent 1 it is Fisher's sum, at infinity the loudest alone.

Why these signals: they ask how far an example is, how much farther than its neighbours, and whether its direction is
its own, of gradients and of latents, each against trusted examples. ROC-AUC, mean and lowest, and average precision of
the 23 cells without labels of tests/benchmarks/detection (means over three seeds); of the eight of 2 % among clothes
and digits; and regret, the most that is lost in a cell to the single signal that is best there, picked by the answer:

                                       23 cells              8 cells       regret
    this                               .936  .672  .446      .967  .889    .085
    without robust unit leverage       .935  .679  .441      .964  .890    .081
    without gradient isolation         .934  .650  .443      .967  .892    .108
    without robust latent distance     .926  .667  .459      .967  .874    .329
    without latent isolation           .932  .638  .447      .961  .882    .119
    without robust latent direction    .935  .688  .432      .965  .880    .107
    gradient isolation counts 1        .936  .683  .446      .966  .884    .075
    exponent 1                         .935  .668  .447      .968  .891    .090
    exponent 2                         .936  .676  .446      .966  .886    .081
    ranks as p-values                  .933  .665  .412      .967  .888    .120
    loss counts half                   .935  .670  .447      .965  .888    .087
    unit leverage counts 1             .936  .667  .458      .967  .882    .091
    two gradients to one latent, sum   .931  .653  .433      .965  .879    .145

Gradient isolation counts half, for its order changes from build to build (rank correlation .47, the others' .86 to
.98): with a whole voice the score's is .89, with half .93. Signals and weights were seen on all these cells.
`choose.py` beside them chooses among 210 on one half of cells and seeds and reports on the other: what won on the
first half (unit leverage in place of gradient isolation) loses up to .196 in a run of the other, this .144; what won on
the second (gradient isolation counting 1, exponent 2) loses .134 on the first, this .119.

How many are kept out of the trusted was weighed with a former combination, on 29 cells and seeds: a quarter had the
least regret (.026), a tenth .040, half .063, nobody .099. With a tenth kept out, noise among digits stayed trusted and
was its own neighbourhood.

What lost earlier: the change of the loss, gradient distances (.80 alone). Robust leverage of the biases' gradients
(`--parameters '*.bias'`) helped rotated clothes by about .01, and costs a second set of sketches.

Why copies and clumps are apart: to every other signal a copy is the most ordinary thing there is, and so are noisy
pictures that an encoder makes one point of; and in data without them the nearest pairs mean nothing. So they count from
an absolute value on, by how few there are: where 700 of 10,000 letters are exact copies of another, that is how the
data are, and must not stand before what is broken.

Where examples have labels and the model predicts them, the score is about labels: a tail-sum of the odds of a label
error, which have a whole voice, the neighbours' doubt and the mean loss, which have a tenth. Found in the first 10 %
and 20 %, and average precision, where a tenth is mislabelled, half of the runs uniformly, half as the most similar
class; means of 17 runs (6,000 and 20,000 clothes, digits, pen strokes, letters, Reuters, emoji), all in view of the
choice:

    odds alone                                       .856  .954  .903
    odds, a tenth of doubt and of loss (this)        .855  .957  .901
    odds, a sixth of both                            .853  .959  .898
    odds, a third of doubt                           .851  .958  .894
    odds, a third of both                            .848  .960  .891

Doubt helps where labels are flipped to any class (clothes .951 to .954) and costs where to the most similar (letters
.92 to .85 with a third); loss helps where a model has learned little (emoji .71 to .74). Copies that contradict each
other add nothing (average precision .99 to .96 on pen strokes): one of each two is right, and only the odds say which.
Self-influence and leverage, of the encoder or of the last layer, and the influence of the own class find .02 to .2 less
than the loss. Signals that need no labels are blind to labels (.15 to .21 in the first 10 %), and in the score cost
.17: rank by one of them, `--signal robust_unit_leverage`, for what is foreign or corrupted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped
from numpy.typing import NDArray
from scipy.stats import rankdata

from gradstore.errors import QueryError, ShapeError
from gradstore.ranking.null import Null, standardised

WEIGHTS = {
    "robust_unit_leverage": 1.0,
    "gradient_isolation": 0.5,
    "robust_latent_distance": 1.0,
    "latent_isolation": 1.0,
    "robust_latent_direction": 1.0,
}
"""What each signal counts in the default score."""

TAILS = tuple(WEIGHTS)
"""The signals by whose values examples stand out."""

POWER = 1.5
"""Of their mean: 1 hears all alike, infinity the loudest alone."""

GROUPED = {"near_duplicate": (0.6, 0.85), "clump": (0.45, 0.7)}
"""Signals that mean nothing below the first value, and all they can from the second on. Of 4,000 clothes without copies
9 exceed the first of near_duplicate and 2 the second; of copies stored as JPEG all and .77, of copies made smaller and
large again .77 and .52. Of clean clothes and digits none exceeds the first of clump; of 10,000 letters 60 and of 1,500
emoji 25 do, in groups that are there."""

DEFAULT_COMBINATION = (*TAILS, *GROUPED)
"""What the default score is made of."""

LABEL_WEIGHTS = {"neighbour_doubt": 0.1, "label_error": 1.0, "loss": 0.1}
LABELLED_COMBINATION = tuple(LABEL_WEIGHTS)
"""The same where examples have labels and the model predicts them: it is then labels that are suspected."""

_AT_MOST = 20.0
_SHOWN = 10


def tail_sum(
    signals: Mapping[str, Shaped[np.ndarray, " example"]], weights: Mapping[str, float] | None = None
) -> Float[np.ndarray, " example"]:
    """Sum over signals of -log(1 - rank/(N+1)), rank 1 the lowest value, ties sharing their average rank.

    Args:
        signals: one array [N] a signal, higher = more suspicious.
        weights: what each counts; 1 by default.

    Returns:
        One score > 0 an example, without a unit; unchanged by any increasing transform of a signal.

    Raises:
        QueryError: no signal at all, or a value that is NaN or infinite.
        ShapeError: signals of different lengths.

    Source: Fisher 1925, combination of p-values, with ranks as p-values.

    >>> tail_sum({"loss": np.array([0.1, 5.0, 0.2])}).argmax()
    np.int64(1)
    """
    if not signals:
        raise QueryError("A combination needs at least one signal and was given none.")
    require_finite(signals)
    require_same_length(signals)
    counts = weights or dict.fromkeys(signals, 1.0)
    surprises = [counts[name] * surprise(values) for name, values in signals.items()]
    return np.asarray(np.sum(surprises, axis=0), dtype=np.float64)


def combined(signals: Mapping[str, Shaped[np.ndarray, " example"]]) -> Float[np.ndarray, " example"]:
    """The default score: how improbable its values are, and what copies and clumps add; of labels, a tail-sum.

    Args:
        signals: one array [N] a signal, those of `combination_in` them.

    Raises: as `tail_sum`.
    """
    if combination_in(signals) == LABELLED_COMBINATION:
        return tail_sum({name: signals[name] for name in LABEL_WEIGHTS}, LABEL_WEIGHTS)
    require_finite({name: signals[name] for name in DEFAULT_COMBINATION})
    require_same_length({name: signals[name] for name in DEFAULT_COMBINATION})
    powers = sum(weight * improbability(signals[name]) ** POWER for name, weight in WEIGHTS.items())
    alone = (powers / sum(WEIGHTS.values())) ** (1 / POWER)
    return np.asarray(alone + group_evidence(signals), dtype=np.float64)


def group_evidence(signals: Mapping[str, Shaped[np.ndarray, " example"]]) -> Float[np.ndarray, " example"]:
    """What a rank as high surprises by, from a value on: the more examples are copied, the less each copy."""
    parts = [
        surprise(signals[name]) * np.clip((signals[name] - starts_at) / (full_at - starts_at), 0.0, 1.0)
        for name, (starts_at, full_at) in GROUPED.items()
    ]
    return np.asarray(np.max(parts, axis=0))


def in_group(signals: Mapping[str, Shaped[np.ndarray, " example"]]) -> Bool[np.ndarray, " example"]:
    """Which examples have copies, or lie in a clump: any signal of GROUPED says so."""
    return np.asarray(np.any([signals[name] > starts_at for name, (starts_at, _) in GROUPED.items()], axis=0))


def combination_in(signals: Collection[str]) -> tuple[str, ...]:
    """What the default score is made of where these signals are there."""
    return LABELLED_COMBINATION if set(LABELLED_COMBINATION).issubset(signals) else DEFAULT_COMBINATION


def surprise(values: Shaped[np.ndarray, " example"]) -> Float[np.ndarray, " example"]:
    """-log(1 - rank/(N+1)) of every value: what one signal adds to the tail-sum."""
    return np.asarray(-np.log1p(-rankdata(values) / (len(values) + 1)), dtype=np.float64)


def improbability(values: Shaped[np.ndarray, " example"]) -> Float[np.ndarray, " example"]:
    """-log of the share of examples that a signal's bulk lets one expect above each value, at most 20.

    Ranks' where most values are equal, which foretell nothing.
    """
    found = standardised(values)
    null = Null.of(found)
    if null is None:
        return surprise(values)
    return np.asarray(-np.log(np.maximum(null.beyond(found), math.exp(-_AT_MOST))), dtype=np.float64)


def percentile(scores: Shaped[np.ndarray, " example"]) -> Float[np.ndarray, " example"]:
    """Share of the examples, in percent, whose score is strictly lower: `above 99.9 % of examples` is then true.

    >>> percentile(np.array([3.0, 1.0, 1.0, 2.0]))
    array([75.,  0.,  0., 50.])
    """
    return np.asarray(100.0 * (rankdata(scores, method="min") - 1) / max(len(scores), 1), dtype=np.float64)


def percent_text(percent: float) -> str:
    """A percentile in words, rounded down with more digits near the top: never `100 %` while someone is above.

    >>> percent_text(97.36), percent_text(99.9983)
    ('97.3', '99.998')
    """
    digits = 1 if percent < 99.9 else 2 if percent < 99.99 else 3
    return f"{math.floor(percent * 10**digits + 1e-6) / 10**digits:.{digits}f}"


def require_finite(signals: Mapping[str, NDArray[Any]], name_of: Callable[[int], str] = "row {}".format) -> None:
    """Refuse NaN and infinity, which have no rank; the message names the examples by `name_of(row)`."""
    for name, values in signals.items():
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            shown = ", ".join(name_of(int(row)) for row in bad[:_SHOWN]) + (", …" if len(bad) > _SHOWN else "")
            raise QueryError(
                f"Signal {name!r} is NaN or infinite for {len(bad)} of {len(values)} examples: {shown}. "
                "A ranking needs finite numbers. Look at these examples, or rank without this signal."
            )


def require_same_length(signals: Mapping[str, NDArray[Any]]) -> None:
    """Refuse signals that do not describe the same examples."""
    shapes = {name: values.shape for name, values in signals.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 1 for shape in shapes.values()):
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ShapeError(f"Signals must all be [n_examples]; found {found}. Compute them from one store.")
