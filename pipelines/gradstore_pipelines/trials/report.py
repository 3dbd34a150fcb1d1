"""The page of a self-test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gradstore.evaluation.detection import Detection, Interval
from gradstore.evaluation.planting import KINDS_EXPLAINED
from gradstore.ranking.rank import COMBINED
from gradstore.report.selftest import KindOnPage, Planted, SelftestPage, render_selftest
from gradstore.store.files import write_atomically
from gradstore.store.place import name_of
from gradstore_pipelines.report import short_path
from gradstore_pipelines.trials.judged import CURVE_AT, KindResult
from gradstore_pipelines.trials.result import SelftestResult
from gradstore_pipelines.trials.sample import LABEL_KINDS_EXPLAINED
from gradstore_pipelines.trials.trial import BASELINES, Shown
from gradstore_pipelines.trials.words import checks, findings, gaps, heading, recommendations

_EXPLAINED: Mapping[str, str] = {**KINDS_EXPLAINED, **LABEL_KINDS_EXPLAINED}


def write_selftest(result: SelftestResult, path: Path) -> None:
    """Write one self-contained HTML file.

    Raises:
        StoreWriteError: no room.
    """
    page = SelftestPage(
        title=f"Self-test of {name_of(result.setting.store)}",
        advice=recommendations(result),
        facts=_facts(result),
        notes=[*findings(result), *checks(result), *gaps(result)],
        signals={name: result.roc_aucs(name) for name in result.signals},
        baselines=BASELINES,
        compared={
            heading(advice): {name: _figures(found) for name, found in result.compared(advice).items()}
            for advice in result.advice
        },
        kinds=[_kind(kind) for kind in result.kinds],
    )
    write_atomically(path, render_selftest(page).encode())


def _facts(result: SelftestResult) -> dict[str, str]:
    setting = result.setting
    trained = "the store's checkpoints" if setting.epochs is None else f"{setting.epochs} epochs each"
    return {
        "Store": short_path(setting.store),
        "Sample": f"{setting.n_examples:,} of {setting.n_stored:,} examples",
        "Made bad": f"{setting.n_planted:,} at a time",
        "Times": f"{setting.repeats}",
        "Model": f"{setting.model}, {trained}",
        "Tracked parameters": setting.parameters,
        "Seed": f"{setting.seed}",
    }


def _figures(figures: Detection) -> dict[str, str]:
    found = {f"first {100 * share:g} %": interval for share, interval in figures.found.items()}
    named = {
        "ROC-AUC": figures.roc_auc,
        "average precision": figures.average_precision,
        "D": figures.mean_detection,
        **found,
    }
    return {name: _interval(interval) for name, interval in named.items()}


def _interval(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f}–{interval.high:.3f})"


def _kind(kind: KindResult) -> KindOnPage:
    return KindOnPage(
        name=kind.kind.replace("_", " "),
        meaning=_EXPLAINED[kind.kind],
        note=_note(kind),
        n_planted=kind.n_planted,
        n_examples=kind.n_examples,
        curves={name: list(zip(CURVE_AT, curve, strict=True)) for name, curve in kind.curves.items()},
        found=[_planted(one) for one in kind.found],
        missed=[_planted(one) for one in kind.missed],
    )


def _note(kind: KindResult) -> str:
    name, value = kind.best
    if not kind.can_be_found:
        return f"No signal finds these: the best, {name}, has a ROC-AUC of {value:.3f}."
    if COMBINED not in kind.figures or name == COMBINED:
        return f"Best found by {name}: ROC-AUC {value:.3f}."
    return f"Best found by {name}: ROC-AUC {value:.3f}; {COMBINED} {kind.figures[COMBINED].roc_auc.value:.3f}."


def _planted(shown: Shown) -> Planted:
    return Planted(id=shown.id, rank=shown.rank, example=shown.example, label=shown.label, was=shown.was)
