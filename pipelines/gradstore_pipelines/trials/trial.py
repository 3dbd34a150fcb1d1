"""One trial of a self-test: errors of one kind in a sample, through the whole pipeline.

    plant -> build, as the store was built -> every signal of a ranking, the score, and baselines

What is kept of it is small: the scores, and which examples were planted. How well the one finds the other is judged
when all trials are there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.typing import NDArray

from gradstore.errors import QueryError
from gradstore.ranking.rank import COMBINED, needed_by, scores_by, signal_names
from gradstore.ranking.signals import Computed, possible_signals, rows_to_read, signals_of
from gradstore.store import Store
from gradstore_pipelines.progress import Advance
from gradstore_pipelines.trials.features import raw_isolation_forest
from gradstore_pipelines.trials.sample import Contaminated, Sample

LOSS, LATENT, FOREST, RANDOM = "loss", "latent_distance", "raw_isolation_forest", "random"
BASELINES = (LOSS, LATENT, FOREST, RANDOM)
"""What the score is shown beside: two plain signals, and two that are none."""
_SHOWN = 6
Scores = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Shown:
    """A planted example, to be looked at."""

    id: str
    rank: int
    """by the combined score; 1 is the most suspicious"""
    label: str | None
    was: str | None
    """the label that it had, where another was planted"""
    example: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Trial:
    """One kind of error, planted once."""

    kind: str
    repeat: int
    planted: Bool[np.ndarray, " example"]
    scores: Mapping[str, Scores]
    """of everything that has a finite number for every example: the combined score first"""
    undefined: Mapping[str, str]
    """signals that have none, and why"""
    found: tuple[Shown, ...]
    """the planted examples that rank highest, highest first"""
    missed: tuple[Shown, ...]
    """and those that rank lowest, lowest first"""


def trial_of(
    store: Store, sample: Sample, contaminated: Contaminated, kind: str, repeat: int, seed: int, advance: Advance
) -> Trial:
    """The scores of a contaminated sample.

    Args:
        store: of the contaminated sample, complete.
        seed: of the scores by chance.
        advance: told how many signals have been computed since its last call; of `n_signals` in all.
    """
    scores, undefined = _scores(store, contaminated, seed, advance)
    found, missed = _shown(sample, contaminated, scores.get(COMBINED, scores[RANDOM]))
    return Trial(kind, repeat, contaminated.mask, scores, undefined, found, missed)


def n_signals(store: Store) -> int:
    """How many signals and baselines a trial of this store's data computes."""
    return len(signal_names(store, None)) + 1


def n_passes(store: Store) -> int:
    """How often these read every row of every checkpoint."""
    return rows_to_read(store, signal_names(store, None)) // (store.n_examples * store.n_checkpoints)


def _scores(
    store: Store, contaminated: Contaminated, seed: int, advance: Advance
) -> tuple[dict[str, Scores], dict[str, str]]:
    signals, undefined, computed = dict[str, Scores](), dict[str, str](), Computed(store)
    for name in signal_names(store, None):
        with _noted(undefined, name):
            signals[name] = _finite(computed.values(name))
        advance(1)
    scores = dict[str, Scores]()
    with _noted(undefined, COMBINED):
        scores[COMBINED] = _finite(_combined(store, signals))
    of_ranking = signals_of(store)
    shown = {name: values for name, values in signals.items() if name in of_ranking}
    forest = raw_isolation_forest(contaminated.examples)
    advance(1)
    chance = np.random.default_rng(seed).random(len(contaminated.mask))
    return {**scores, **shown, FOREST: forest, RANDOM: chance}, undefined


def _combined(store: Store, signals: Mapping[str, Scores]) -> Scores:
    """Of what a ranking of this store combines: never of other signals because one of those is missing."""
    needed = needed_by(COMBINED, possible_signals(store))
    missing = [name for name in needed if name not in signals]
    if missing:
        raise QueryError(f"it is made of {', '.join(missing)} as well")
    return scores_by({name: signals[name] for name in needed}, COMBINED)


@contextmanager
def _noted(undefined: dict[str, str], name: str) -> Iterator[None]:
    """A signal that cannot be computed is no reason to lose the others."""
    try:
        yield
    except (QueryError, ArithmeticError, np.linalg.LinAlgError) as error:
        undefined[name] = str(error)


def _finite(values: Shaped[np.ndarray, " example"]) -> Scores:
    bad = int((~np.isfinite(values)).sum())
    if bad:
        raise QueryError(f"it is NaN or infinite for {bad:,} of {len(values):,} examples")
    return np.asarray(values, dtype=np.float64)


def _shown(sample: Sample, contaminated: Contaminated, scores: Scores) -> tuple[tuple[Shown, ...], tuple[Shown, ...]]:
    """Both ends of the planted examples' ranking; none at both."""
    order = np.argsort(-scores, kind="stable")
    ranks = np.flatnonzero(contaminated.mask[order])
    highest = ranks[: min(_SHOWN, -(-len(ranks) // 2))]
    lowest = ranks[len(highest) :][::-1][:_SHOWN]
    found, missed = (
        tuple(_one(sample, contaminated, int(order[rank]), int(rank) + 1) for rank in part)
        for part in (highest, lowest)
    )
    return found, missed


def _one(sample: Sample, contaminated: Contaminated, row: int, rank: int) -> Shown:
    label = was = None
    if contaminated.labels is not None and sample.labels is not None:
        label, was = (sample.label_name(int(labels[row])) for labels in (contaminated.labels, sample.labels))
    return Shown(sample.ids[row], rank, label, None if was == label else was, contaminated.examples[row])
