"""`gradstore rank-outliers`: which examples are suspicious, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gradstore_cli.options import JsonOption, OutputOption
from gradstore_cli.table_output import TableOutput

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = 20
_COLUMNS = ("rank", "id", "label", "score", "percentile", "reason")


def rank_outliers(
    store: Annotated[Path | None, typer.Argument(metavar="STORE", help="The gradient store.")] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help=f"Only so many examples; by default {_SHOWN} on screen, all in a file.")
    ] = None,
    signal: Annotated[
        str, typer.Option(metavar="NAME", help="Rank by this signal; --list-signals names them.")
    ] = "combined",
    output: OutputOption = None,
    format: Annotated[
        Literal["parquet", "csv", "jsonl", "html"] | None,
        typer.Option(help="Format of the file; without -o it goes to stdout."),
    ] = None,
    list_signals: Annotated[bool, typer.Option("--list-signals", help="Only say what each signal means.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List examples, most suspicious first, each with its reason.

    Example:
      gradstore rank-outliers digits.store
      gradstore rank-outliers digits.store -o suspicious.csv
      gradstore rank-outliers digits.store --signal loss -o suspicious.html
      gradstore rank-outliers --list-signals
    """
    if list_signals:
        _print_signals(as_json)
        return
    if store is None:
        raise typer.BadParameter("Give the gradient store to rank.", param_hint="STORE")
    destination = TableOutput(output, format, as_json)
    if destination.is_page:
        _write_page(store, signal, top, destination)
    else:
        table = _rank(store, signal, top if top or destination.is_file else _SHOWN)
        destination.deliver(table, _COLUMNS, {"store": str(store), "by": signal})


def _rank(store: Path, signal: str, top: int | None) -> pa.Table:
    import gradstore
    from gradstore_cli.progress import TerminalReporter
    from gradstore_pipelines.progress import following

    with following(TerminalReporter(), "signals", "rows") as progress:
        return gradstore.open(store).rank(by=signal, top=top, progress=progress)


def _write_page(store: Path, signal: str, top: int | None, destination: TableOutput) -> None:
    if destination.path is None:
        raise typer.BadParameter("An HTML page needs a file: pass -o FILE.html.")
    if top is not None:
        raise typer.BadParameter("An HTML page shows both ends of the whole ranking: leave --top out.")
    from gradstore.store import Store
    from gradstore_pipelines.report import write_report

    table = _rank(store, signal, None)
    write_report(Store.open(store), table, destination.path, f"Suspicious examples of {store.name}")
    destination.say_written(table, {"store": str(store), "by": signal})


def _print_signals(as_json: bool) -> None:
    from gradstore.ranking.signals import SIGNALS
    from gradstore_cli.tables import Column, print_json, print_table

    if as_json:
        print_json({"signals": [{"name": s.name, "unit": s.unit, "meaning": s.meaning} for s in SIGNALS.values()]})
    else:
        columns = [Column("signal"), Column("unit"), Column("a high value means")]
        print_table(columns, [(s.name, s.unit, s.meaning) for s in SIGNALS.values()])
