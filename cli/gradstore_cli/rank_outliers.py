"""`gradstore rank-outliers`: which examples are suspicious, and why."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gradstore_cli.options import JsonOption, OutputOption, ParametersOption
from gradstore_cli.table_output import TableOutput

if TYPE_CHECKING:
    import pyarrow as pa

    from gradstore.api import GradientStore

_SHOWN = 20
_COLUMNS = ("rank", "id", "label", "score", "percentile", "kind", "reason")


def rank_outliers(
    store: Annotated[str | None, typer.Argument(metavar="STORE", help="The gradient store.")] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help=f"Only so many examples; by default {_SHOWN} on screen, all in a file.")
    ] = None,
    signal: Annotated[
        str, typer.Option(metavar="NAME", help="Rank by this signal; --list-signals names them.")
    ] = "combined",
    parameters: ParametersOption = None,
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
      gradstore rank-outliers both.store --parameters decoder
      gradstore rank-outliers --list-signals
    """
    if list_signals:
        _print_signals(as_json)
        return
    if store is None:
        raise typer.BadParameter("Give the gradient store to rank.", param_hint="STORE")
    destination = TableOutput(output, format, as_json, pictures=("html",))
    if destination.picture and top is not None:
        raise typer.BadParameter("An HTML page shows both ends of the whole ranking: leave --top out.")
    opened = _open(store, parameters)
    about: dict[str, Any] = {"store": str(store), "parameters": opened.store.parameters, "by": signal}
    if destination.picture:
        table = _write_page(opened, signal, destination, about)
    else:
        table = _rank(opened, signal, top if top or destination.is_file else _SHOWN)
        destination.deliver(table, _COLUMNS, about | _cut_off(table))
    _say(opened, table)


def _open(store: str, parameters: str | None) -> GradientStore:
    import gradstore

    return gradstore.open(store, parameters=parameters)


def _rank(opened: GradientStore, signal: str, top: int | None) -> pa.Table:
    from gradstore_cli.progress import TerminalReporter
    from gradstore_pipelines.progress import following

    with following(TerminalReporter(), "signals", "rows") as progress:
        return opened.rank(by=signal, top=top, progress=progress)


def _cut_off(table: pa.Table) -> dict[str, Any]:
    """How many seem bad, for a program."""
    from gradstore.ranking.rank import cut_off_of

    found = cut_off_of(table)
    return {} if found is None else {"cut_off": asdict(found)}


def _say(opened: GradientStore, table: pa.Table) -> None:
    """How many seem bad, and which signals are missing for want of labels, for a person."""
    from gradstore.ranking.rank import cut_off_of
    from gradstore.ranking.signals import left_out

    found = cut_off_of(table)
    if found is not None:
        typer.echo(str(found), err=True)
    without = [name for name, lacks in left_out(opened.store).items() if "labels" in lacks]
    if without:
        typer.echo(
            f"Without labels of two classes there is no {', '.join(without)}: build with --labels for these.", err=True
        )


def _write_page(opened: GradientStore, signal: str, destination: TableOutput, about: dict[str, Any]) -> pa.Table:
    from gradstore.store.place import name_of
    from gradstore_pipelines.report import write_report

    assert destination.path is not None
    table = _rank(opened, signal, None)
    write_report(opened.store, table, destination.path, f"Suspicious examples of {name_of(opened.store.location)}")
    destination.say_written(table, about | _cut_off(table))
    return table


def _print_signals(as_json: bool) -> None:
    from gradstore.ranking.signals import ALL_SIGNALS
    from gradstore_cli.tables import Column, print_json, print_table

    if as_json:
        fields = ("name", "unit", "meaning", "cost", "on_request")
        print_json({"signals": [{name: getattr(s, name) for name in fields} for s in ALL_SIGNALS.values()]})
    else:
        columns = [Column("signal"), Column("unit"), Column("a high value means"), Column("cost")]
        print_table(columns, [(s.name, s.unit, s.meaning, s.cost) for s in ALL_SIGNALS.values()])
