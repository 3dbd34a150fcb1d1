"""`gradstore build`: from a data set to a gradient store."""

from __future__ import annotations

import shlex
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
        bool, typer.Option("--dry-run", help="Only say what the build will take, from a short probe; writes nothing.")
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
        found = estimate(settings, reporter)
        print_json(found.to_json()) if as_json else _print_estimate(found)
        return
    result = build_store(settings, reporter)
    _say_what_was_made(result, reporter)
    if as_json:
        print_json(_as_json(result))


def _print_estimate(found: Estimate) -> None:
    from gradstore_cli.tables import Column, print_table, print_values

    print_values(
        {
            "Examples": human.count(found.n_examples),
            "Checkpoints": human.count(found.n_checkpoints),
            "Tracked parameters": human.count(found.n_tracked_parameters),
            "Shards": human.count(found.n_shards),
            "Files": human.count(found.n_files),
            "Store size": human.size(found.n_bytes),
            "Training": f"about {human.duration(found.seconds_training)}",
            "Sketching": f"about {human.duration(found.seconds_sketching)}",
            "of it": ", ".join(f"{how} {share:.0%}" for how, share in found.time_shares.items()),
        }
    )
    rows = [(route, human.count(tensors), human.count(numbers)) for route, tensors, numbers in found.coverage]
    print_table([Column("gradients by"), Column("tensors", "right"), Column("numbers", "right")], rows)


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
