"""`gradstore status`: how far a build has come, how fast it goes, and who is at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from gradstore_cli import human
from gradstore_cli.options import JsonOption, StoreArgument

if TYPE_CHECKING:
    from gradstore.inspect import Status
    from gradstore.pace import AtWork
    from gradstore.store import Store


def status(store: StoreArgument, as_json: JsonOption = False) -> None:
    """Say how far a build has come; it may be running, here or on another
    machine.

    Example:
      gradstore status digits.store
    """
    from gradstore.inspect import status as status_of
    from gradstore_cli.tables import print_json

    found = status_of(_open(store))
    print_json(found.to_json()) if as_json else _print(found)
    if not found.complete and not found.builders:
        typer.echo("Not finished: run the same build command to go on.", err=True)


def _open(location: StoreArgument) -> Store:
    """Where there is no store yet, whoever is preparing it is named."""
    from gradstore.errors import StoreNotFoundError
    from gradstore.pace import at_work
    from gradstore.store import Store
    from gradstore.store.place import place_of

    try:
        return Store.open(location)
    except StoreNotFoundError as error:
        for builder in at_work(place_of(location)):
            error.add_note(f"At it: {_words(builder)}.")
        raise


def _print(found: Status) -> None:
    from gradstore_cli.tables import Column, print_table, print_values

    print_values(
        {
            "Examples": human.count(found.n_examples),
            "Checkpoints": human.count(found.n_checkpoints),
            "Shards": f"{human.count(found.n_committed)} of {human.count(found.n_units)}",
            "Size": human.size(found.n_bytes),
            "Finished": "yes" if found.complete else "no",
            **_pace(found),
        }
    )
    for builder in found.builders:
        typer.echo(f"At work: {_words(builder)}")
    for slow in found.slow:
        typer.echo(f"Slow: shard {slow.shard} for {human.duration(slow.seconds)}, of process {slow.pid} on {slow.host}")
    of = human.count(found.n_units // found.n_checkpoints)
    rows = [(str(t), f"{human.count(done)} of {of}") for t, done in enumerate(found.committed_by_checkpoint)]
    print_table([Column("checkpoint", "right"), Column("shards", "right")], rows)


def _pace(found: Status) -> dict[str, str]:
    if found.pace is None:
        return {}
    rows = human.rate(found.pace.rows_per_second, "rows")
    return {
        "Speed": f"{rows}, {human.size(round(found.pace.bytes_per_second))}/s",
        "Left": f"about {human.duration(found.pace.seconds_left)}",
    }


def _words(builder: AtWork) -> str:
    heard = f"heard of {human.duration(builder.heard_of)} ago"
    hand = f", {human.count(builder.in_hand, 'shard')} in hand" if builder.in_hand else ""
    return f"process {builder.pid} on {builder.host}, {builder.doing}{hand}, {heard}"
