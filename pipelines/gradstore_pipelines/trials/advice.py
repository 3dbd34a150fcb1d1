"""Which score to rank by on these data: the default one, unless a single signal is better beyond noise.

Twenty signals are compared with the default, and the best of twenty is above it by luck alone. So a single signal is
recommended only where its mean ROC-AUC over the kinds exceeds the default's by more than an interval that holds for
all of them at once (Bonferroni), and by enough to matter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any, Literal

from gradstore.ranking.rank import COMBINED
from gradstore_pipelines.trials.comparison import Advantage, over_all

Group = Literal["examples", "labels"]
_MATTERS = 0.01


@dataclass(frozen=True)
class Advice:
    """What to rank by, for errors of one group."""

    group: Group
    kinds: tuple[str, ...]
    signal: str
    """what is recommended: `combined`, or a signal's name"""
    roc_auc: float
    """its mean over the kinds"""
    combined: float | None
    """that of the combined score; None where there is none"""
    best: str
    """the best single signal, recommended or not"""
    best_roc_auc: float
    advantage: Advantage | None
    """of that signal over the combined score"""
    n_compared: int
    n_within: int
    """kinds on which nothing is better than the combined score beyond noise"""

    def to_json(self) -> dict[str, Any]:
        values = asdict(self)
        if self.advantage is None:
            return values
        margin = self.advantage.margin(self.n_compared)
        known = margin < float("inf")
        return {
            **values,
            "kinds": list(self.kinds),
            "advantage": self.advantage.value,
            "advantage_low": self.advantage.value - margin if known else None,
            "advantage_high": self.advantage.value + margin if known else None,
        }


def advice_on(
    group: str,
    roc_aucs: Mapping[str, Mapping[str, float]],
    over_combined: Mapping[str, Mapping[str, Sequence[Advantage]]],
) -> Advice:
    """Of signals that were judged on every kind.

    Args:
        roc_aucs: kind -> signal -> ROC-AUC, the combined score among the signals where it is defined.
        over_combined: kind -> signal -> its advantage over the combined score, one a repeat.
    """
    means = _means(roc_aucs)
    single = {name: value for name, value in means.items() if name != COMBINED}
    best = max(single, key=lambda name: single[name]) if single else COMBINED
    compared = {
        name: [over_combined[kind][name] for kind in roc_aucs] for name in single if _known(over_combined, name)
    }
    found = over_all(compared[best]) if best in compared else None
    better = COMBINED not in means or (
        found is not None and found.value >= _MATTERS and found.is_beyond_noise(len(compared))
    )
    chosen = best if better else COMBINED
    return Advice(
        group="labels" if group == "labels" else "examples",
        kinds=tuple(roc_aucs),
        signal=chosen,
        roc_auc=means[chosen],
        combined=means.get(COMBINED),
        best=best,
        best_roc_auc=means[best],
        advantage=found,
        n_compared=len(compared),
        n_within=sum(_is_within(compared, place) for place in range(len(roc_aucs))) if compared else 0,
    )


def _means(roc_aucs: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    kinds = list(roc_aucs.values())
    common = [name for name in kinds[0] if all(name in kind for kind in kinds)]
    return {name: mean(kind[name] for kind in kinds) for name in common}


def _known(over_combined: Mapping[str, Mapping[str, Sequence[Advantage]]], name: str) -> bool:
    return all(name in kind for kind in over_combined.values())


def _is_within(compared: Mapping[str, Sequence[Sequence[Advantage]]], kind: int) -> bool:
    """Whether no signal is better than the combined score on this kind, by its number, beyond noise."""
    found = [over_all([kinds[kind]]) for kinds in compared.values()]
    return not any(a.value >= _MATTERS and a.is_beyond_noise(len(found)) for a in found)
