"""What a self-test found: for a person, a table and a program."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import mean
from typing import Any

import pyarrow as pa

from gradstore.evaluation.detection import SHARES, Detection, Interval
from gradstore.ranking.rank import COMBINED
from gradstore_pipelines.trials.advice import Advice, advice_on
from gradstore_pipelines.trials.judged import KindResult, mean_figures
from gradstore_pipelines.trials.sanity import SanityChecks
from gradstore_pipelines.trials.trial import BASELINES

_QUANTITIES = ("roc_auc", "average_precision", "mean_detection")
_FOUND = {share: f"found_in_first_{100 * share:g}_percent" for share in SHARES}
_TYPES: dict[str, pa.DataType] = {
    **dict.fromkeys(("kind", "of", "signal"), pa.string()),
    "is_baseline": pa.bool_(),
    **dict.fromkeys(("n_examples", "n_planted", "repeats"), pa.int64()),
    **{name + end: pa.float64() for name in (*_QUANTITIES, *_FOUND.values()) for end in ("", "_low", "_high")},
}
_SCHEMA = pa.schema(list(_TYPES.items()))


@dataclass(frozen=True)
class Setting:
    """What was tested, and how."""

    store: str
    n_examples: int
    """of a sample"""
    n_stored: int
    """of the store"""
    n_planted: int
    repeats: int
    seed: int
    parameters: str
    model: str
    epochs: int | None
    """that a sample is trained for; None where given checkpoints are used"""
    steps: int | None
    store_epochs: int | None
    store_steps: int | None


@dataclass(frozen=True, eq=False)
class SelftestResult:
    """What a self-test found."""

    setting: Setting
    kinds: tuple[KindResult, ...]
    left_out: Mapping[str, str]
    """kinds that were not tested, and why"""
    undefined: Mapping[str, str]
    """signals that could not be judged, and why"""
    advice: tuple[Advice, ...]
    """for wrong labels apart, where the store's score is about these"""
    sanity: SanityChecks | None
    seconds: float

    @cached_property
    def signals(self) -> tuple[str, ...]:
        """The combined score, then all signals and baselines, best first by their mean over the kinds."""
        names = dict.fromkeys(name for kind in self.kinds for name in kind.figures)
        others = sorted((name for name in names if name != COMBINED), key=lambda name: -self._mean_auc(name))
        return (*(name for name in names if name == COMBINED), *others)

    def roc_aucs(self, signal: str) -> list[float | None]:
        """One a kind."""
        return [kind.figures[signal].roc_auc.value if signal in kind.figures else None for kind in self.kinds]

    def overall(self, signal: str, kinds: Collection[str] | None = None) -> Detection:
        """Over those kinds, all by default, on which the signal could be judged."""
        of = [kind for kind in self.kinds if kinds is None or kind.kind in kinds]
        return mean_figures([kind.figures[signal] for kind in of if signal in kind.figures])

    def compared(self, advice: Advice) -> dict[str, Detection]:
        """What is looked at closely: the score, what is recommended, and the baselines, over the kinds of an advice."""
        names = dict.fromkeys([COMBINED, advice.signal, *BASELINES])
        known = {name for kind in self.kinds if kind.kind in advice.kinds for name in kind.figures}
        return {name: self.overall(name, advice.kinds) for name in names if name in known}

    @property
    def hidden(self) -> tuple[KindResult, ...]:
        """Kinds that nothing finds."""
        return tuple(kind for kind in self.kinds if not kind.can_be_found)

    def table(self) -> pa.Table:
        """One row a kind and signal, with all figures."""
        rows = [_row(kind, signal) for kind in self.kinds for signal in self.signals if signal in kind.figures]
        return pa.Table.from_pylist(rows, schema=_SCHEMA)

    def to_json(self) -> dict[str, Any]:
        from gradstore_pipelines.trials.words import sentences

        return {
            **asdict(self.setting),
            "recommended": [advice.to_json() for advice in self.advice],
            "signals": [
                {"signal": name, **_bounds("roc_auc", self.overall(name).roc_auc), "worst": _worst(self, name)}
                for name in self.signals
            ],
            "not_found": [kind.kind for kind in self.hidden],
            "left_out": dict(self.left_out),
            "undefined": dict(self.undefined),
            "sanity": None if self.sanity is None else self.sanity.to_json(),
            "rows": self.table().to_pylist(),
            "words": sentences(self),
        }

    def _mean_auc(self, signal: str) -> float:
        return mean(value for value in self.roc_aucs(signal) if value is not None)


def result_of(
    setting: Setting,
    kinds: Sequence[KindResult],
    left_out: Mapping[str, str],
    sanity: SanityChecks | None,
    seconds: float,
) -> SelftestResult:
    """All kinds together, and what follows from them."""
    tested = [kind.kind for kind in kinds]
    not_tested = {kind: why for kind, why in left_out.items() if kind not in tested}
    undefined = {name: why for kind in kinds for name, why in kind.undefined.items()}
    return SelftestResult(setting, tuple(kinds), not_tested, undefined, _advice(kinds), sanity, seconds)


def _advice(kinds: Sequence[KindResult]) -> tuple[Advice, ...]:
    """Apart for wrong labels and for all else: a store's score is about one of them."""
    groups = {"labels": [k for k in kinds if k.is_of_labels], "examples": [k for k in kinds if not k.is_of_labels]}
    return tuple(
        advice_on(
            group,
            {k.kind: k.roc_aucs for k in members},
            {k.kind: k.over_combined for k in members},
        )
        for group, members in groups.items()
        if members
    )


def _row(kind: KindResult, signal: str) -> dict[str, Any]:
    figures = kind.figures[signal]
    quantities: dict[str, Interval] = {name: getattr(figures, name) for name in _QUANTITIES}
    quantities |= {name: figures.found[share] for share, name in _FOUND.items()}
    return {
        "kind": kind.kind,
        "of": "labels" if kind.is_of_labels else "examples",
        "signal": signal,
        "is_baseline": signal in BASELINES,
        **{name: getattr(kind, name) for name in ("n_examples", "n_planted", "repeats")},
        **{key: value for name, interval in quantities.items() for key, value in _bounds(name, interval).items()},
    }


def _bounds(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _worst(result: SelftestResult, signal: str) -> float:
    return min(value for value in result.roc_aucs(signal) if value is not None)
