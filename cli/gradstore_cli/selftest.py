"""`gradstore selftest`: known errors, planted into the user's own data and found again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradstore_cli.options import JsonOption, OutputOption
from gradstore_cli.settings_options import options_from, settings_from
from gradstore_cli.table_output import TableOutput
from gradstore_pipelines.trials.settings import SelftestSettings

if TYPE_CHECKING:
    from gradstore.evaluation.detection import Detection, Interval
    from gradstore_pipelines.trials.result import SelftestResult

_UNDEFINED = "–"


@options_from(SelftestSettings, argument="store")
def selftest(*, output: OutputOption = None, as_json: JsonOption = False, **values: Any) -> None:
    """Plant known errors into a sample of your own data, and see which signal finds them.

    Each kind of error that fits the data (pictures, series, tables, texts, labels)
    is planted by itself; the sample goes through the store's own pipeline, and all
    signals are judged by what they find, beside loss, latent neighbours, an
    isolation forest and chance. Says which signal to rank by. The store and its
    data stay as they are; an interrupted self-test goes on when run again.

    Example:
      gradstore selftest digits.store --kinds noise,inverted -o selftest.html
    """
    from gradstore_cli.progress import TerminalReporter
    from gradstore_cli.tables import print_json
    from gradstore_pipelines.trials.run import selftest as test
    from gradstore_pipelines.trials.words import sentences

    destination = TableOutput(output, None, as_json, pictures=("html",))
    reporter = TerminalReporter()
    result = test(settings_from(SelftestSettings, values), reporter)
    if destination.is_file:
        _write(result, destination)
    elif as_json:
        print_json(result.to_json())
    else:
        _print(result)
    for sentence in sentences(result):
        reporter.say(sentence)


def _write(result: SelftestResult, destination: TableOutput) -> None:
    from gradstore_pipelines.trials.report import write_selftest

    about = {name: value for name, value in result.to_json().items() if name != "rows"}
    if destination.picture is None:
        destination.deliver(result.table(), (), about)
    else:
        assert destination.path is not None
        write_selftest(result, destination.path)
        destination.say_written(result.table(), about)


def _print(result: SelftestResult) -> None:
    from gradstore_cli.tables import Column, print_table
    from gradstore_pipelines.trials.words import heading

    kinds = [Column(kind.kind.replace("_", " "), "right") for kind in result.kinds]
    print_table(
        [Column("ROC-AUC"), *kinds, Column("mean", "right"), Column("worst", "right")],
        [_aucs(result, signal) for signal in result.signals],
    )
    for advice in result.advice:
        print()
        compared = result.compared(advice)
        first = [f"first {100 * share:g} %" for share in next(iter(compared.values())).found]
        names = ("ROC-AUC", "average precision", "D", *first)
        print_table(
            [Column(heading(advice)), *(Column(name, "right") for name in names)],
            [[signal, *_cells(found)] for signal, found in compared.items()],
        )


def _aucs(result: SelftestResult, signal: str) -> list[str]:
    found = result.roc_aucs(signal)
    known = [value for value in found if value is not None]
    return [signal, *(map(_auc, found)), _auc(sum(known) / len(known)), _auc(min(known))]


def _auc(value: float | None) -> str:
    """Short, for there are many columns.

    >>> _auc(0.934), _auc(1.0), _auc(None)
    ('.93', '1.00', '–')
    """
    return _UNDEFINED if value is None else f"{value:.2f}".removeprefix("0")


def _cells(figures: Detection) -> list[str]:
    return [
        *(_interval(i) for i in (figures.roc_auc, figures.average_precision, figures.mean_detection)),
        *(_interval(i) for i in figures.found.values()),
    ]


def _interval(interval: Interval) -> str:
    return f"{_auc(interval.value)} ({_auc(interval.low)}–{_auc(interval.high)})"
