"""`gradstore diff`: what changed between two stores, and which examples moved in the ranking."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gradstore_cli import human
from gradstore_cli.options import JsonOption, OutputOption
from gradstore_cli.table_output import TableOutput

if TYPE_CHECKING:
    from gradstore.ranking.compare import Comparison

_COLUMNS = ("id", "status", "rank_a", "rank_b", "change")


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="One gradient store.", show_default=False)],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.", show_default=False)],
    top: Annotated[int, typer.Option(min=1, help="On screen only so many examples; a file holds all.")] = 20,
    signal: Annotated[str, typer.Option(metavar="NAME", help="Compare rankings by this signal.")] = "combined",
    output: OutputOption = None,
    format: Annotated[
        Literal["parquet", "csv", "jsonl"] | None,
        typer.Option(help="Format of the file; without -o it goes to stdout."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what store B has that A has not, and how the ranking changed.

    Ranks are among the examples that both have and neither has forgotten. Columns: id,
    status, rank in A and in B (1 is the most suspicious), change (above 0: more
    suspicious in B); a file also has labels and scores.

    Example:
      gradstore diff digits.store both.store
      gradstore diff digits.store both.store --signal loss -o changes.csv
    """
    from gradstore.ranking.compare import compare, signals_for
    from gradstore.store import Store
    from gradstore_cli.progress import TerminalReporter
    from gradstore_pipelines.progress import following

    destination = TableOutput(output, format, as_json)
    stores = Store.open(a), Store.open(b)
    for name, store in zip("AB", stores, strict=True):
        with following(TerminalReporter(), f"signals of {name}", "rows") as progress:
            signals_for(store, signal, progress)
    found = compare(*stores, signal)
    about = {"a": a, "b": b, "by": signal, **found.to_json()}
    _say(found)
    table = found.table if destination.is_file else found.table.slice(0, top)
    destination.deliver(table, _COLUMNS, about)


def _say(found: Comparison) -> None:
    """The summary, on stderr: stdout is the table."""
    counts = ", ".join(f"{human.count(n)} {status}" for status, n in found.counts.items() if n)
    relabelled = f" {human.count(found.n_relabelled)} have another label." if found.n_relabelled else ""
    typer.echo(f"Examples: {counts}.{relabelled}", err=True)
    for setting in found.settings:
        typer.echo(f"  {setting.name}: {setting.a} in A, {setting.b} in B", err=True)
    if found.spearman is not None and found.top_overlap is not None:
        same = f"{found.top_overlap:.0%} of the top 1 %"
        typer.echo(f"Ranks correlate by {found.spearman:.3f} (Spearman); {same} of A is in that of B.", err=True)
