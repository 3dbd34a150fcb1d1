"""`gradstore verify`: does every shard still have the bytes that were committed?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import typer

from gradstore_cli import human
from gradstore_cli.options import JsonOption, StoreArgument

if TYPE_CHECKING:
    from gradstore.store import VerifyReport


def verify(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Read every committed byte and hold it against its hash.

    Exit status 0: all is as it was committed; 1: the faults are listed.

    Example:
      gradstore verify digits.store
    """
    from gradstore.store import Store
    from gradstore.store import verify as verify_store
    from gradstore_cli.progress import TerminalReporter
    from gradstore_cli.tables import print_json

    opened = Store.open(store)
    with TerminalReporter().task("verify", opened.n_committed, "shards") as advance:
        report = verify_store(opened, lambda n_checked: advance(1))
    print_json(json.loads(report.to_json())) if as_json else _print(report)
    if not report.ok:
        raise typer.Exit(1)


def _print(report: VerifyReport) -> None:
    for problem in report.problems:
        typer.echo(problem)
    checked = f"{human.count(report.n_committed)} of {human.count(report.n_shards, 'shard')} committed"
    found = "all as they were committed" if report.ok else human.count(len(report.problems), "problem")
    typer.echo(f"{checked}: {found}.")
