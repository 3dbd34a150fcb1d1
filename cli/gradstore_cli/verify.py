"""`gradstore verify`: is the store what was written, and can its numbers be right?"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from gradstore_cli import human
from gradstore_cli.options import JsonOption, StoreArgument

if TYPE_CHECKING:
    from gradstore.store import Store, VerifyReport
    from gradstore.store.repair import Repaired


def verify(
    store: StoreArgument,
    recompute: Annotated[
        int, typer.Option(min=0, metavar="N", help="Also compute N rows again, from the data and the model.")
    ] = 0,
    repair: Annotated[
        bool, typer.Option("--repair", help="Take away what is bad, so that the next build makes it again.")
    ] = False,
    device: Annotated[str, typer.Option(help="Where --recompute computes: cpu or cuda.")] = "cpu",
    as_json: JsonOption = False,
) -> None:
    """Read every byte of a store and hold it against its hash, and its numbers
    against what they can be.

    Also looks at checkpoints, indexes, graphs and cached signals. Exit status 0:
    all is well, or --repair has mended all; 1: the faults are listed.

    Example:
      gradstore verify digits.store
      gradstore verify digits.store --recompute 64
      gradstore verify digits.store --repair --json
    """
    from gradstore_cli.tables import print_json

    report, opened = _report(store, recompute, device)
    mended = _repaired(opened, report) if repair and opened is not None and not report.ok else None
    if as_json:
        print_json({**json.loads(report.to_json()), "repaired": None if mended is None else list(mended.done)})
    else:
        _print(report)
    if mended is not None:
        _say_what_was_done(mended, opened)
    if not (report.ok or (mended is not None and not mended.left)):
        raise typer.Exit(1)


def _report(location: str, recompute: int, device: str) -> tuple[VerifyReport, Store | None]:
    """What is found, and the store where it opens."""
    from gradstore.errors import StoreCorruptError, StoreFormatError
    from gradstore.store import Store, verify_at
    from gradstore.store import verify as verify_store
    from gradstore_cli.progress import TerminalReporter
    from gradstore_pipelines.recompute import with_recomputed

    try:
        opened = Store.open(location)
    except (StoreCorruptError, StoreFormatError):
        return verify_at(location), None
    with TerminalReporter().task("verify", opened.n_committed, "shards") as advance:
        report = verify_store(opened, lambda n_checked: advance(1))
    if recompute:
        report = with_recomputed(report, opened, recompute, device, TerminalReporter())
    return report, opened


def _repaired(opened: Store, report: VerifyReport) -> Repaired:
    from gradstore.store.repair import repair

    return repair(opened, report)


def _say_what_was_done(mended: Repaired, opened: Store | None) -> None:
    from gradstore_pipelines.command import finishing_command

    for sentence in (*mended.done, *(f"Not mended: {finding.sentence}" for finding in mended.left)):
        typer.echo(sentence, err=True)
    if mended.discarded and opened is not None:
        typer.echo(f"Next:\n  {finishing_command(opened)}", err=True)


def _print(report: VerifyReport) -> None:
    for sentence in (*report.problems, *report.notes):
        typer.echo(sentence)
    if report.recomputed:
        counts = report.recomputed
        words = ", ".join(f"{human.count(counts[name])} {name}" for name in ("same", "close", "different"))
        typer.echo(f"Computed again: {human.count(counts['rows'], 'row')}: {words}.")
    checked = f"{human.count(report.n_committed)} of {human.count(report.n_shards, 'shard')} committed"
    found = "all as they were committed" if report.ok else human.count(len(report.problems), "problem")
    typer.echo(f"{checked}: {found}.")
