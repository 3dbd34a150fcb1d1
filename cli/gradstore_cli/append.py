"""`gradstore append`: new examples, or new checkpoints, to a finished store."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from gradstore_cli import human
from gradstore_cli.options import JsonOption
from gradstore_cli.settings_options import options_from, settings_from
from gradstore_pipelines.append_settings import AppendSettings

if TYPE_CHECKING:
    from gradstore_pipelines.append import AppendResult


@options_from(AppendSettings, argument=("store", "source"))
def append(*, as_json: JsonOption = False, **values: Any) -> None:
    """Append new examples, or new checkpoints, to a finished store.

    Only what is new is computed; the model stays as it was trained. The store is
    the old one until all is there, and then the one that a build of all data at
    once would have made. An interrupted append goes on when it is run again.

    Example:
      gradstore append digits.store more.npz
      gradstore append digits.store
    """
    from gradstore_cli.progress import TerminalReporter
    from gradstore_cli.tables import print_json
    from gradstore_pipelines.append import append as append_to_store

    result = append_to_store(settings_from(AppendSettings, values), TerminalReporter())
    typer.echo(_words(result), err=True)
    if as_json:
        print_json({**asdict(result), "store": str(result.store)})


def _words(result: AppendResult) -> str:
    store = shlex.quote(str(result.store))
    new = [
        human.count(count, f"new {noun}")
        for count, noun in ((result.new_examples, "example"), (result.new_checkpoints, "checkpoint"))
        if count
    ]
    holds = f"{human.count(result.n_examples, 'example')} at {human.count(result.n_checkpoints, 'checkpoint')}"
    if not (new or result.sketched_shards):
        return f"{store} holds that already: {holds}. Nothing to do."
    what = f", {' and '.join(new)} among them" if new else ""
    made = human.count(result.sketched_shards, "shard")
    return f"{store} holds {holds}{what}; {made} sketched now.\nNext:\n  gradstore rank-outliers {store}"
