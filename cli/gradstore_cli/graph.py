"""`gradstore graph`: the nearest examples of every example, kept beside the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gradstore_cli import human
from gradstore_cli.options import JsonOption
from gradstore_cli.settings_options import options_from, settings_from
from gradstore_pipelines.graph_settings import GraphSettings

if TYPE_CHECKING:
    from gradstore_pipelines.graph import GraphEstimate, GraphResult


@options_from(GraphSettings, argument="store")
def graph(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it will take; writes nothing.")] = False,
    as_json: JsonOption = False,
    **values: Any,
) -> None:
    """Find the nearest examples of every example, by gradients or by latents.

    The graph is read by gradstore.open(STORE).graph(): rows of neighbours and
    distances. It continues where it was interrupted.

    Example:
      gradstore graph digits.store --dry-run
      gradstore graph digits.store
      gradstore graph digits.store --space latent --k 5
    """
    from gradstore_cli.progress import TerminalReporter
    from gradstore_cli.tables import print_json
    from gradstore_pipelines.graph import build_graph, estimate_graph

    settings = settings_from(GraphSettings, values)
    if dry_run:
        estimate = estimate_graph(settings)
        document, words = _estimate_json(estimate), _estimate_words(estimate)
    else:
        result = build_graph(settings, TerminalReporter())
        document, words = _json(result), _words(result)
    typer.echo(words, err=True)
    if as_json:
        print_json(document)


def _estimate_json(estimate: GraphEstimate) -> dict[str, Any]:
    return {
        "method": estimate.plan.method,
        "metric": estimate.plan.metric,
        "checkpoints": list(estimate.plan.checkpoints),
        "bytes": estimate.graph_bytes,
        "bytes_while_built": estimate.copy_bytes,
    }


def _estimate_words(estimate: GraphEstimate) -> str:
    plan = estimate.plan
    how = {
        "exact": f"compares all {human.count(plan.n_examples, 'example')} with one another",
        "cells": f"looks for {plan.recall:.0%} of the neighbours near each example",
    }
    copy = f", and {human.size(estimate.copy_bytes)} while it is built" if estimate.copy_bytes else ""
    return f"The graph takes {human.size(estimate.graph_bytes)}{copy}. It {how[plan.method]}, by {plan.metric}."


def _json(result: GraphResult) -> dict[str, Any]:
    found = result.graph
    return {
        "graph": str(result.folder),
        "space": found.plan.space,
        "metric": found.plan.metric,
        "checkpoints": list(found.plan.checkpoints),
        "k": found.k,
        "method": found.plan.method,
        "recall": found.card.recall,
        "sampled": found.card.sampled,
        "compared": found.card.compared,
        "shards": result.shards,
    }


def _words(result: GraphResult) -> str:
    found = result.graph
    done = f"Found {human.count(result.shards, 'shard')}" if result.shards else "Already there"
    return (
        f"{done}: the nearest {found.k} of {human.count(found.n_examples, 'example')} by {found.plan.metric}, recall "
        f"{found.recall:.3f} on {found.card.sampled} of them, in {result.folder}."
    )
