"""`gradstore demo`: known errors, planted and found again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradstore_cli import human
from gradstore_cli.options import JsonOption

if TYPE_CHECKING:
    from gradstore_cli.progress import TerminalReporter
    from gradstore_pipelines.demo import DemoResult


def demo(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where data, store and results go.")] = Path(
        "gradstore-demo"
    ),
    seed: Annotated[int, typer.Option(help="Of the planted errors and of the training.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Plant known errors into scikit-learn's digits, and see which signal finds them.

    Takes a minute or two; needs no data of yours and no network.

    Example:
      gradstore demo
    """
    from gradstore_cli.progress import TerminalReporter
    from gradstore_cli.tables import print_json
    from gradstore_pipelines.demo import run_demo

    reporter = TerminalReporter()
    result = run_demo(out, reporter, seed)
    print_json(result.to_json()) if as_json else _print(result)
    _say_where(result, reporter)


def _print(result: DemoResult) -> None:
    from gradstore_cli.tables import Column, print_table

    first = f"found in the first {result.n_planted}"
    print_table(
        [Column("signal"), Column("ROC-AUC", "right"), Column(first, "right")],
        [(signal.name, f"{signal.roc_auc:.3f}", human.count(signal.found)) for signal in result.signals],
        title=f"{result.n_planted} errors planted among {human.count(result.n_examples, 'example')}",
    )
    print_table(
        [Column("planted"), Column("examples", "right"), Column(first, "right")],
        [(kind, human.count(n), human.count(result.found_by_kind[kind])) for kind, n in result.planted_by_kind.items()],
        title="By the combined score",
    )


def _say_where(result: DemoResult, reporter: TerminalReporter) -> None:
    reporter.say(f"Done in {human.duration(result.seconds)}. Look at {result.html} in a browser.")
    reporter.say(f"The ranking as a table: {result.csv}, {result.parquet}. The store: {result.store}.")
    reporter.say("The same on your own data (.npy, .npz, IDX, or a folder of images):")
    reporter.say("  gradstore build DATA --store my.store\n  gradstore rank-outliers my.store -o suspicious.csv")
