"""`gradstore build`: from a data set to a gradient store."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradstore_cli import human
from gradstore_cli.options import JsonOption
from gradstore_cli.settings_options import options_from, settings_from
from gradstore_pipelines.settings import BuildSettings

if TYPE_CHECKING:
    from gradstore_cli.progress import TerminalReporter
    from gradstore_pipelines.build_store import BuildResult
    from gradstore_pipelines.estimate import Estimate


@options_from(BuildSettings, argument="source")
def build(
    *,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what it will take, from a short trial; leaves nothing behind."),
    ] = False,
    as_json: JsonOption = False,
    **values: Any,
) -> None:
    """Make a gradient store from a data set, or finish one.

    Trains a model, or takes the weights of --checkpoints, and sketches every
    example's gradient at every checkpoint. An interrupted build goes on when
    the same command is run again.

    Example:
      gradstore build digits.npz --store digits.store
      gradstore build digits.npz --store both.store --parameters encoder --parameters decoder
      gradstore build photos --store photos.store --image-size 16 --dry-run
    """
    from gradstore_cli.progress import TerminalReporter
    from gradstore_cli.tables import print_json
    from gradstore_pipelines.build_store import build as build_store
    from gradstore_pipelines.estimate import estimate

    settings, reporter = settings_from(BuildSettings, values), TerminalReporter()
    if dry_run:
        found = estimate(settings, reporter, seconds_before=time.process_time())
        print_json(found.to_json()) if as_json else print_estimate(found)
        return
    result = build_store(settings, reporter)
    _say_what_was_made(result, reporter)
    if as_json:
        print_json(_as_json(result))


def print_estimate(found: Estimate) -> None:
    """Print what a build will make and take."""
    from gradstore_cli.tables import Column, print_table, print_values

    print_values(
        {
            "Examples": human.count(found.n_examples),
            "Checkpoints": human.count(found.n_checkpoints),
            "Tracked parameters": human.count(found.n_tracked_parameters),
            "Shards": human.count(found.n_shards),
            "Files": human.count(found.n_files),
            "Store size": human.size(found.n_bytes),
            "Memory": _memory(found),
            "Starting": f"about {human.duration(found.seconds_starting)}",
            "Training": f"about {human.duration(found.seconds_training)}",
            "Sketching": f"about {human.duration(found.seconds_sketching)}{_by_workers(found)}",
            "of it": ", ".join(f"{how} {share:.0%}" for how, share in found.time_shares.items()),
            "In all": f"about {human.duration(found.seconds)}",
        }
    )
    for note in found.notes:
        typer.echo(note, err=True)
    rows = [(route, human.count(tensors), human.count(numbers)) for route, tensors, numbers in found.coverage]
    print_table([Column("gradients by"), Column("tensors", "right"), Column("numbers", "right")], rows)


def _memory(found: Estimate) -> str:
    workers = f", and {human.size(found.memory_of_worker)} a worker" if found.memory_of_worker else ""
    return human.size(found.memory) + workers


def _by_workers(found: Estimate) -> str:
    return f" on {human.count(found.n_workers, 'worker')}" if found.n_workers else ""


def _say_what_was_made(result: BuildResult, reporter: TerminalReporter) -> None:
    store = shlex.quote(str(result.store))
    holds = f"{human.count(result.n_examples, 'example')} at {human.count(result.n_checkpoints, 'checkpoint')}"
    if result.sketched_shards:
        reporter.say(f"{store} is finished: {holds}, {human.count(result.sketched_shards, 'shard')} sketched now.")
    else:
        reporter.say(f"{store} was finished already: {holds}. Nothing to do.")
    reporter.say(f"Next:\n  gradstore rank-outliers {store}\n  gradstore proponents {store} --query FILE")


def _as_json(result: BuildResult) -> dict[str, Any]:
    return {
        "store": str(result.store),
        "examples": result.n_examples,
        "checkpoints": result.n_checkpoints,
        "sketched_shards": result.sketched_shards,
    }
