"""`gradstore status`: how far a build has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from gradstore_cli import human
from gradstore_cli.options import JsonOption, StoreArgument

if TYPE_CHECKING:
    from gradstore.inspect import Status


def status(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Say how far a build has come; it may be running.

    Example:
      gradstore status digits.store
    """
    from gradstore.inspect import status as status_of
    from gradstore.store import Store
    from gradstore_cli.tables import print_json

    found = status_of(Store.open(store))
    print_json(found.to_json()) if as_json else _print(found)
    if not found.complete:
        typer.echo("Not finished: run the same build command to go on.", err=True)


def _print(found: Status) -> None:
    from gradstore_cli.tables import Column, print_table, print_values

    print_values(
        {
            "Examples": human.count(found.n_examples),
            "Checkpoints": human.count(found.n_checkpoints),
            "Shards": f"{human.count(found.n_committed)} of {human.count(found.n_units)}",
            "Size": human.size(found.n_bytes),
            "Finished": "yes" if found.complete else "no",
        }
    )
    of = human.count(found.n_units // found.n_checkpoints)
    rows = [(str(t), f"{human.count(done)} of {of}") for t, done in enumerate(found.committed_by_checkpoint)]
    print_table([Column("checkpoint", "right"), Column("shards", "right")], rows)
