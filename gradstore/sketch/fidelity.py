"""Fidelity: how well sketches of each length keep what exact gradients say about a sample of examples.

What is compared is TracIn influence, the sum over checkpoints of learning rate times inner product: once from exact
gradients, once from rows as a store keeps them (`gradstore.sketch.stored`), with an independent projection for each
checkpoint as in a store. What the rounding of stored rows costs by itself is measured against sketches in float32.

Why recall and not only correlation: what is asked of a store is a list of proponents, and a few pairs of large
influence can give a fine correlation to lists that are wrong. Examples whose exact influence equals that of the
last one on the list, to float32's precision, count as found: of two copies of one example either will do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64
from numpy.typing import NDArray
from scipy.stats import rankdata

from gradstore.errors import QueryError
from gradstore.sketch.gram import BLOCK_BYTES, Blocks, GradientSample, SketchLengths, products
from gradstore.sketch.stored import sketched_influence, stored_rows
from gradstore.store.manifest import SKETCH_DTYPES, SketchDtype

FEWEST_EXAMPLES = 3
"""Two examples make one pair; a correlation needs several."""
_CONSTANT = 1e-6  # a spread below this share of the values is the rounding of float32 gradients
_ROUNDING = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class SampledCheckpoint:
    """A sample's exact gradients at one checkpoint of a store."""

    number: int
    """Which checkpoint: the stream of its projection."""
    learning_rate: float
    sample: GradientSample


@dataclass(frozen=True)
class Recall:
    """Of each example's m strongest proponents among the others, the share that sketches put among their first m."""

    mean: float
    standard_error: float
    """Of the mean, from the spread over examples."""


@dataclass(frozen=True)
class Agreement:
    """How well sketches of one length agree with exact gradients."""

    d_sketch: int
    pearson: float | None
    """Over all pairs of different examples; None where influence is the same for every pair."""
    spearman: float | None
    recall_10: Recall | None
    """None where the sample has fewer than 20 others for each example: most would be found by chance."""
    recall_100: Recall | None
    """None where the sample has fewer than 200 others for each example."""
    self_influence_error_mean: float
    """Relative error of self-influence read from |sketch|² instead of the exact norm; mean over examples."""
    self_influence_error_max: float


@dataclass(frozen=True, eq=False)
class Fidelity:
    """What was measured on a sample."""

    agreements: tuple[Agreement, ...]
    """One a length, shortest first."""
    dtypes: Mapping[SketchDtype, Agreement]
    """Sketches of one length as each dtype keeps them, against the same in float32."""
    norms: Float64[np.ndarray, "checkpoint example"]
    """Exact gradient norms."""

    def recommended(self, recall: float) -> Agreement | None:
        """The shortest length whose recall@10 reaches `recall`; None where none does."""
        return next((a for a in self.agreements if a.recall_10 and a.recall_10.mean >= recall), None)


def measure(
    checkpoints: Iterable[SampledCheckpoint],
    lengths: Sequence[int],
    seed: int,
    block_bytes: int = BLOCK_BYTES,
    *,
    own: int | None = None,
    dtype: SketchDtype = "float16",
) -> Fidelity:
    """Compare exact influence with that of sketches of several lengths, on the same examples.

    Args:
        checkpoints: taken one after the other, so that a generator can load the weights of each when it is asked.
        lengths: lengths of sketches to measure.
        seed: of the projections.
        block_bytes: exact gradients in memory at a time.
        own: the length at which dtypes are compared; by default the first.
        dtype: as which sketches of all lengths are kept.

    Raises:
        QueryError: fewer than three examples, or nothing but zero gradients.
        TaskError: gradients that are not finite.
    """
    own = lengths[0] if own is None else own
    found = [_evaluate(checkpoint, [*lengths, own], seed, block_bytes) for checkpoint in checkpoints]
    rates, norms = np.array([f.learning_rate for f in found]), np.stack([f.norms for f in found])
    exact = np.sum([f.learning_rate * f.gram for f in found], axis=0)
    _require_gradients(norms)

    def kept(d: int, dtype: SketchDtype) -> Float64[np.ndarray, "example example"]:
        return sketched_influence([stored_rows(f.sketches[d], f.norms, dtype) for f in found], norms, rates)

    agreements = tuple(compare(d, exact, kept(d, dtype)) for d in sorted(set(lengths)))
    single = kept(own, "float32")
    return Fidelity(agreements, {name: compare(own, single, kept(own, name)) for name in SKETCH_DTYPES}, norms)


def compare(
    d_sketch: int,
    exact: Float64[np.ndarray, "example example"],
    sketched: Float64[np.ndarray, "example example"],
) -> Agreement:
    """Hold sketched influence against exact influence; the diagonal is self-influence."""
    pairs = np.triu_indices(len(exact), k=1)
    pearson, spearman = _correlations(exact[pairs], sketched[pairs])
    own, own_sketched = np.diag(exact), np.diag(sketched)
    errors = np.abs(own_sketched - own)[own > 0] / own[own > 0]
    return Agreement(
        d_sketch=d_sketch,
        pearson=pearson,
        spearman=spearman,
        recall_10=_mean_recall(exact, sketched, 10),
        recall_100=_mean_recall(exact, sketched, 100),
        self_influence_error_mean=float(errors.mean()),
        self_influence_error_max=float(errors.max()),
    )


def recall(
    exact: Float64[np.ndarray, "example example"], sketched: Float64[np.ndarray, "example example"], m: int
) -> Float64[np.ndarray, " example"]:
    """Of each example's first m by sketched influence, the share that belongs to its first m by exact influence."""
    scale = np.sqrt(np.diag(exact))
    last = np.partition(_others(exact), -m, axis=1)[:, -m]
    belongs = exact >= last[:, None] - _ROUNDING * np.outer(scale, scale)
    first = np.argpartition(_others(sketched), -m, axis=1)[:, -m:]
    return np.asarray(np.take_along_axis(_others(belongs), first, axis=1).mean(axis=1))


@dataclass(frozen=True, eq=False)
class _Evaluated:
    """A sample at one checkpoint."""

    learning_rate: float
    gram: Float64[np.ndarray, "example example"]
    norms: Float64[np.ndarray, " example"]
    sketches: Mapping[int, Float32[np.ndarray, "example d_sketch"]]
    """By length."""


def _evaluate(checkpoint: SampledCheckpoint, lengths: Sequence[int], seed: int, block_bytes: int) -> _Evaluated:
    sample = checkpoint.sample
    _require_pairs(sample.n_examples)
    sketches = SketchLengths(sample, lengths, seed, checkpoint.number)
    found = products(sample, sketches, Blocks.within(sample, block_bytes))
    return _Evaluated(checkpoint.learning_rate, found.gram, found.norms, found.sketches)


def _mean_recall(
    exact: Float64[np.ndarray, "example example"], sketched: Float64[np.ndarray, "example example"], m: int
) -> Recall | None:
    if len(exact) - 1 < 2 * m:
        return None
    shares = recall(exact, sketched, m)
    return Recall(float(shares.mean()), float(shares.std(ddof=1) / np.sqrt(len(shares))))


def _others(matrix: NDArray[np.generic]) -> NDArray[np.generic]:
    """[n, n] without its diagonal: [n, n - 1]."""
    return matrix[~np.eye(len(matrix), dtype=bool)].reshape(len(matrix), -1)


def _correlations(
    x: Float64[np.ndarray, " pair"], y: Float64[np.ndarray, " pair"]
) -> tuple[float | None, float | None]:
    """Pearson's and Spearman's; None where one side does not vary."""
    if _is_constant(x) or _is_constant(y):
        return None, None
    return _pearson(x, y), _pearson(rankdata(x), rankdata(y))


def _is_constant(values: Float64[np.ndarray, " pair"]) -> bool:
    return bool(np.ptp(values) <= _CONSTANT * np.abs(values).max())


def _pearson(x: Float64[np.ndarray, " pair"], y: Float64[np.ndarray, " pair"]) -> float:
    return float(np.clip(np.corrcoef(x / np.abs(x).max(), y / np.abs(y).max())[0, 1], -1.0, 1.0))


def _require_pairs(n_examples: int) -> None:
    if n_examples < FEWEST_EXAMPLES:
        raise QueryError(
            f"Fidelity compares pairs of examples and was given {n_examples}; expected at least {FEWEST_EXAMPLES}. "
            "Take a larger sample, or a store of more data."
        )


def _require_gradients(norms: Float64[np.ndarray, "checkpoint example"]) -> None:
    if not norms.any():
        raise QueryError(
            f"All gradients of the {norms.shape[1]} sampled examples are zero, so there is no influence to compare. "
            "Does the loss depend on the tracked parameters? Look at: gradstore show STORE"
        )
