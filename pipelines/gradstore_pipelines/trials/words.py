"""What a self-test found, in sentences: for the terminal, for the page, and for whoever reads the JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from gradstore.ranking.rank import COMBINED
from gradstore_pipelines.trials.advice import Advice
from gradstore_pipelines.trials.judged import FINDABLE, KindResult
from gradstore_pipelines.trials.result import SelftestResult

_FEW = 20
_OF = {"examples": "bad examples", "labels": "wrong labels"}


def sentences(result: SelftestResult) -> list[str]:
    """All of them."""
    return [*about(result), *recommendations(result), *findings(result), *checks(result), *gaps(result)]


def about(result: SelftestResult) -> list[str]:
    """What was done."""
    setting = result.setting
    times = "" if setting.repeats == 1 else f", {setting.repeats} times each, with other samples and trainings"
    return [
        f"{_count(setting.n_examples, 'example')} of {setting.n_stored:,}, {setting.n_planted:,} of them made bad, one "
        f"kind at a time{times}: {_listed([kind.kind for kind in result.kinds])}. {_training(result)}"
    ]


def recommendations(result: SelftestResult) -> list[str]:
    """What to rank by."""
    several = len(result.advice) > 1
    return [_recommendation(advice, several) for advice in result.advice]


def heading(advice: Advice) -> str:
    """Of a table of means.

    >>> from gradstore_pipelines.trials.advice import advice_on
    >>> heading(advice_on("labels", {"mislabelled": {"loss": 0.9}}, {"mislabelled": {}}))
    'wrong labels: mean over 1 kind'
    """
    return f"{_OF[advice.group]}: mean over {_count(len(advice.kinds), 'kind')}"


def findings(result: SelftestResult) -> list[str]:
    """What nothing finds, and how sure the figures are."""
    n_planted = result.setting.n_planted
    few = (
        f"Only {_count(n_planted, 'example')} {'was' if n_planted == 1 else 'were'} bad at a time: the intervals are "
        "wide. A larger --sample or --share, or --repeats 3, narrows them."
    )
    return [
        *([_hidden(result.hidden)] if result.hidden else []),
        *([few] if n_planted < _FEW else []),
        "Examples that were bad before count as false alarms here: the figures are rather too low than too high.",
    ]


def checks(result: SelftestResult) -> list[str]:
    """What the gradients themselves look like."""
    return [] if result.sanity is None else result.sanity.sentences()


def gaps(result: SelftestResult) -> list[str]:
    """What was not tested, and why."""
    return [
        *_grouped("Not planted", result.left_out),
        *_grouped("Not judged", result.undefined),
    ]


def _training(result: SelftestResult) -> str:
    setting = result.setting
    if setting.epochs is None:
        return "Each time the store's own checkpoints were used: the model has not seen what is planted."
    trained = f"Each time {setting.model} was trained anew, for {_count(setting.epochs, 'epoch')}"
    if setting.epochs == setting.store_epochs:
        return f"{trained}, as for the store."
    return (
        f"{trained}, {_count(setting.steps or 0, 'step')}; the store's training was "
        f"{_count(setting.store_epochs or 0, 'epoch')}, {_count(setting.store_steps or 0, 'step')}."
    )


def _recommendation(advice: Advice, several: bool) -> str:
    """One sentence, beginning with what is to be found where that is not all."""
    sentence = _what_to_rank_by(advice)
    return f"For {_OF[advice.group]}: {sentence[0].lower()}{sentence[1:]}" if several else sentence


def _what_to_rank_by(advice: Advice) -> str:
    if advice.combined is None:
        return f"Rank by --signal {advice.signal}: mean ROC-AUC {_auc(advice.roc_auc)}; there is no combined score."
    if advice.signal == COMBINED:
        return f"Keep the default: the combined score (mean ROC-AUC {_auc(advice.combined)}) {_standing(advice)}."
    return (
        f"Rank by --signal {advice.signal}: its mean ROC-AUC is {_auc(advice.roc_auc)}, that of the combined score "
        f"{_auc(advice.combined)}{_interval(advice)}{_by_design(advice)}."
    )


def _standing(advice: Advice) -> str:
    """How the combined score stands, kind by kind and on the whole."""
    n_better = len(advice.kinds) - advice.n_within
    by_kind = f"is best or within noise on {advice.n_within} of {_count(len(advice.kinds), 'kind')}"
    if advice.best_roc_auc <= (advice.combined or 0.0):
        return f"{by_kind}, and no single signal has a higher mean" if n_better else by_kind
    rival = f"{advice.best} has {_auc(advice.best_roc_auc)}, which may be luck{_interval(advice)}"
    return f"{by_kind}, and no single signal is better on the whole: {rival}" if n_better else f"{by_kind}; {rival}"


def _interval(advice: Advice) -> str:
    if advice.advantage is None or advice.advantage.margin(advice.n_compared) == float("inf"):
        return ""
    margin = advice.advantage.margin(advice.n_compared)
    low, high = advice.advantage.value - margin, advice.advantage.value + margin
    return f" (95 % interval of the difference {low:+.3f} to {high:+.3f}, for the best of {advice.n_compared})"


def _by_design(advice: Advice) -> str:
    """A labelled store's score is about labels."""
    is_blind = advice.group == "examples" and advice.combined is not None and advice.combined < 0.6
    return "; that score looks for wrong labels" if is_blind else ""


def _hidden(kinds: Sequence[KindResult]) -> str:
    named = _listed([f"{kind.kind} (best {_auc(kind.best[1])}, {kind.best[0]})" for kind in kinds])
    return f"No signal reaches a ROC-AUC of {FINDABLE} on {named}: do not expect to find these in your data."


def _grouped(what: str, reasons: Mapping[str, str]) -> Iterator[str]:
    """Names that share a reason share a sentence."""
    for reason in dict.fromkeys(reasons.values()):
        names = [name for name, why in reasons.items() if why == reason]
        yield f"{what}: {_listed(names)} ({reason.rstrip('.')})."


def _auc(value: float) -> str:
    return f"{value:.3f}"


def _count(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
