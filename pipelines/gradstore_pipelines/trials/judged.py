"""How well each signal found the errors of one kind, over all repeats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
from jaxtyping import Bool

from gradstore.evaluation.detection import SHARES, Detection, Interval, detection_curve, pooled
from gradstore.ranking.rank import COMBINED
from gradstore_pipelines.trials.comparison import Advantage, advantage
from gradstore_pipelines.trials.sample import LABEL_KINDS
from gradstore_pipelines.trials.trial import BASELINES, FOREST, RANDOM, Scores, Shown, Trial

FINDABLE = 0.6
"""Below this ROC-AUC of the best of twenty signals, 40 planted examples have been found by luck."""
CURVE_AT = tuple((step / 50) ** 2 for step in range(51))
"""Shares of the sample at which a detection curve is kept, denser where it matters."""
_DRAWN = (COMBINED, *BASELINES)
_RESAMPLES = 200


@dataclass(frozen=True, eq=False)
class KindResult:
    """One kind of error."""

    kind: str
    n_examples: int
    n_planted: int
    repeats: int
    figures: Mapping[str, Detection]
    over_combined: Mapping[str, Sequence[Advantage]]
    """of every signal, one a repeat; empty where there is no combined score"""
    curves: Mapping[str, tuple[float, ...]]
    """mean detection curves of the score and the baselines, at `CURVE_AT`"""
    undefined: Mapping[str, str]
    """signals that could not be judged, and why"""
    found: tuple[Shown, ...]
    missed: tuple[Shown, ...]
    """of the first time"""

    @property
    def is_of_labels(self) -> bool:
        return self.kind in LABEL_KINDS

    @property
    def roc_aucs(self) -> dict[str, float]:
        """Of what `rank-outliers` can rank by."""
        return {name: figures.roc_auc.value for name, figures in self.figures.items() if is_for_ranking(name)}

    @property
    def best(self) -> tuple[str, float]:
        """The signal that finds it best, and its ROC-AUC."""
        return max(self.roc_aucs.items(), key=lambda item: item[1])

    @property
    def can_be_found(self) -> bool:
        return self.best[1] >= FINDABLE


def judged(trials: Sequence[Trial], seed: int) -> KindResult:
    """Trials of one kind, held against what was planted.

    Args:
        seed: of the intervals.
    """
    first, names = trials[0], [name for name in trials[0].scores if all(name in t.scores for t in trials)]
    masks = [trial.planted for trial in trials]
    scores = {name: [trial.scores[name] for trial in trials] for name in names}
    combined = scores.get(COMBINED, [])
    return KindResult(
        kind=first.kind,
        n_examples=len(first.planted),
        n_planted=int(first.planted.sum()),
        repeats=len(trials),
        figures={
            name: pooled(list(zip(each, masks, strict=True)), SHARES, _RESAMPLES, seed) for name, each in scores.items()
        },
        over_combined={name: list(map(advantage, each, combined, masks)) for name, each in scores.items() if combined},
        curves={name: _mean_curve(scores[name], masks) for name in _DRAWN if name in scores},
        undefined={name: why for trial in trials for name, why in trial.undefined.items()},
        found=first.found,
        missed=first.missed,
    )


def mean_figures(kinds: Sequence[Detection]) -> Detection:
    """The mean over kinds, and its interval: what is planted, and what is learned, is independent."""
    names = ("roc_auc", "average_precision", "mean_detection")
    return Detection(
        **{name: _mean_interval([getattr(kind, name) for kind in kinds]) for name in names},
        found={share: _mean_interval([kind.found[share] for kind in kinds]) for share in kinds[0].found},
    )


def is_for_ranking(signal: str) -> bool:
    """Whether `rank-outliers` ranks by it: two of the baselines are no signals."""
    return signal not in (FOREST, RANDOM)


def _mean_interval(intervals: Sequence[Interval]) -> Interval:
    """Errors of independent estimates add as squares."""
    value, n = mean(i.value for i in intervals), len(intervals)
    below = sum((i.value - i.low) ** 2 for i in intervals) ** 0.5 / n
    above = sum((i.high - i.value) ** 2 for i in intervals) ** 0.5 / n
    return Interval(value, max(value - below, 0.0), min(value + above, 1.0))


def _mean_curve(scores: Sequence[Scores], masks: Sequence[Bool[np.ndarray, " example"]]) -> tuple[float, ...]:
    return tuple(map(mean, zip(*map(_curve, scores, masks), strict=True)))


def _curve(scores: Scores, mask: Bool[np.ndarray, " example"]) -> list[float]:
    curve = np.append(0.0, detection_curve(scores, mask))
    at = np.asarray(CURVE_AT) * len(mask)
    return [float(value) for value in np.interp(at, np.arange(len(curve)), curve)]
