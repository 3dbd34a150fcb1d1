"""`gradstore forget`: examples that rankings and searches shall take no notice of."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from gradstore_cli import human
from gradstore_cli.options import JsonOption, StoreArgument


def forget(
    store: StoreArgument,
    ids: Annotated[
        Path | None,
        typer.Option("--ids", metavar="FILE", help="Their ids: a .txt, .csv, .json or .parquet file, or - for stdin."),
    ] = None,
    named: Annotated[list[str] | None, typer.Option("--id", metavar="ID", help="This example; repeatable.")] = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="Take notice of them again; of all, where none is named.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Forget examples: rankings and searches take no notice of them any more.

    Their rows stay in the store, so that nothing is computed anew but the
    ranking, and --undo brings them back. A ranking that was written as a file
    and cut by hand is a list of ids.

    Example:
      gradstore forget digits.store --id digit-0007
      gradstore rank-outliers digits.store --top 5 -o worst.csv
      gradstore forget digits.store --ids worst.csv
      gradstore forget digits.store --undo
    """
    from gradstore.store import Store

    wanted = _wanted(ids, named or [])
    if wanted is None and not undo:
        raise typer.BadParameter("Name the examples by --ids FILE or --id ID.")
    opened = Store.open(store)
    changed = opened.remember(wanted) if undo else opened.forget(wanted or [])
    mask = opened.forgotten()
    _report(opened.n_examples, changed, 0 if mask is None else int(mask.sum()), str(store), undo=undo, as_json=as_json)


def _wanted(file: Path | None, named: list[str]) -> list[str] | None:
    """Ids of both; None where none is named."""
    from gradstore.store.id_files import parse_ids, read_ids

    if file is None:
        return named or None
    return [*(parse_ids(sys.stdin.read()) if str(file) == "-" else read_ids(file)), *named]


def _report(n_examples: int, changed: int, forgotten: int, store: str, *, undo: bool, as_json: bool) -> None:
    from gradstore_cli.tables import print_json

    done = "taken notice of again" if undo else "forgotten now"
    in_all = f"{human.count(forgotten)} of {human.count(n_examples, 'example')}"
    typer.echo(f"{human.count(changed, 'example')} {done}; forgotten in all: {in_all}.", err=True)
    if changed and not undo:
        typer.echo(f"Next:\n  gradstore rank-outliers {shlex.quote(store)}", err=True)
    if as_json:
        print_json({"store": store, "changed": changed, "forgotten": forgotten, "examples": n_examples})
