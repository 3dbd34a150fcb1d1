"""`gradstore fidelity`: how good the sketches of a store are on its own data, and what other lengths would give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gradstore_cli import human
from gradstore_cli.options import JsonOption, OutputOption
from gradstore_cli.settings_options import options_from, settings_from
from gradstore_cli.table_output import TableOutput
from gradstore_pipelines.fidelity_settings import FidelitySettings

if TYPE_CHECKING:
    from gradstore.sketch.fidelity import Recall
    from gradstore_pipelines.fidelity_result import FidelityResult, MeasuredDtype, MeasuredLength

_UNDEFINED = "–"


@options_from(FidelitySettings, argument="store")
def fidelity(*, output: OutputOption = None, as_json: JsonOption = False, **values: Any) -> None:
    """Measure a store's sketches against exact gradients, and other lengths beside them.

    Takes a sample of the store's own examples through plain autograd and says how
    well influence, lists of proponents and self-influence survive sketching, what
    each length costs in bytes, and which is the shortest that is good enough.

    Example:
      gradstore fidelity digits.store
      gradstore fidelity digits.store --sample 64 --sketch-dim 512 --recall 0.8
    """
    from gradstore_cli.progress import TerminalReporter
    from gradstore_cli.tables import print_json
    from gradstore_pipelines.fidelity import fidelity as measure

    destination = TableOutput(output, None, as_json)
    reporter = TerminalReporter()
    result = measure(settings_from(FidelitySettings, values), reporter)
    if destination.is_file:
        destination.deliver(result.table(), (), _about(result))
    elif as_json:
        print_json({**result.to_json(), "words": _words(result)})
    else:
        _print(result)
    for sentence in _words(result):
        reporter.say(sentence)


def _about(result: FidelityResult) -> dict[str, Any]:
    return {name: value for name, value in result.to_json().items() if name not in ("rows", "dtypes")}


def _print(result: FidelityResult) -> None:
    from gradstore_cli.tables import Column, print_table

    headings = ("sketch-dim", "bytes a row", "store", "Pearson", "Spearman", "recall@10", "recall@100")
    errors = ("self-influence error", "largest")
    columns = [Column(name, "right") for name in (*headings, *errors)]
    print_table([*columns, Column("")], [_cells(result, length) for length in result.lengths])
    print()
    columns = [Column(name, "right") for name in ("sketch-dtype", *headings[1:])]
    print_table([*columns, Column("")], [_dtype_cells(result, dtype) for dtype in result.dtypes])


def _dtype_cells(result: FidelityResult, dtype: MeasuredDtype) -> list[str]:
    """Against float32 of the same length."""
    remark = "this store" if dtype.dtype == result.sketch_dtype else ""
    return [dtype.dtype, *_cells(result, dtype.measured)[1:7], remark]


def _cells(result: FidelityResult, length: MeasuredLength) -> list[str]:
    found = length.agreement
    remarks = {"this store": result.sketch_dim, "recommended": result.recommended}
    return [
        str(found.d_sketch),
        human.count(length.bytes_a_row),
        human.size(length.bytes_of_store),
        _correlation(found.pearson),
        _correlation(found.spearman),
        _recall(found.recall_10),
        _recall(found.recall_100),
        _percent(found.self_influence_error_mean),
        _percent(found.self_influence_error_max),
        ", ".join(remark for remark, d_sketch in remarks.items() if d_sketch == found.d_sketch),
    ]


def _correlation(value: float | None) -> str:
    return _UNDEFINED if value is None else f"{value:.4f}"


def _recall(value: Recall | None) -> str:
    return _UNDEFINED if value is None else f"{value.mean:.3f} ± {value.standard_error:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _words(result: FidelityResult) -> list[str]:
    """What was measured, what to make of it, and what could not be measured."""
    return [
        f"{human.count(result.n_examples)} of {human.count(result.n_stored, 'example')} at "
        f"{human.count(len(result.checkpoints), 'checkpoint')}, each alone through plain autograd.",
        *_about_recall(result),
        *_about_correlation(result),
        _about_self_influence(result),
        _recommendation(result),
        f"Dtypes keep {result.sketch_dim} numbers, and are held against the same in float32: build --sketch-dtype.",
    ]


def _about_recall(result: FidelityResult) -> list[str]:
    undefined = {
        "Recall@10": (21, result.lengths[0].agreement.recall_10 is None),
        "Recall@100": (201, result.lengths[0].agreement.recall_100 is None),
    }
    missing = [f"{name} needs a --sample of {fewest} or more" for name, (fewest, no) in undefined.items() if no]
    sentences = [f"{'; '.join(missing)}: with fewer most would be found by chance."] if missing else []
    if not undefined["Recall@10"][1]:
        chance = " and ".join(f"{result.chance(m):.2f}" for m in (10, 100) if not undefined[f"Recall@{m}"][1])
        sentences.append(
            "Recall is of each example's strongest proponents within the sample; lists drawn at random would reach "
            f"{chance}. ± is the standard error over examples."
        )
    return sentences


def _about_correlation(result: FidelityResult) -> list[str]:
    flat = [str(length.agreement.d_sketch) for length in result.lengths if length.agreement.pearson is None]
    return [f"No correlation at {', '.join(flat)}: influence is the same for all pairs of examples."] if flat else []


def _about_self_influence(result: FidelityResult) -> str:
    sentence = (
        "The error of self-influence is that of |sketch|². gradstore does not read it from there: a store keeps the "
        "exact norm of every gradient"
    )
    checked = "" if result.norm_error is None else f", here within {100 * result.norm_error:.1g} % of plain autograd's"
    return f"{sentence}{checked}."


def _recommendation(result: FidelityResult) -> str:
    asked = f"a recall@10 of {result.recall_asked:g}"
    if result.best_recall is None:
        return f"No length can be recommended for {asked}: the sample is too small."
    length, reached = result.best_recall
    if result.recommended is None:
        return (
            f"No length measured reaches {asked}; the best is {length} with {reached:.3f}. Try a larger --sketch-dim."
        )
    return f"{result.recommended} is the shortest length measured that reaches {asked}."
