"""`gradstore index`: a search index for proponents and opponents."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from gradstore_cli import human
from gradstore_cli.options import JsonOption, ParametersOption, StoreArgument


def index(
    store: StoreArgument,
    normalise: Annotated[
        Literal["none", "cosine", "relatif"],
        typer.Option(help="The reading that it serves; cosine and relatif share one index."),
    ] = "none",
    parameters: ParametersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build the FAISS index that --index flat searches.

    Example:
      gradstore index digits.store
      gradstore proponents digits.store --id digit-0007 --index flat
    """
    import gradstore
    from gradstore_cli.progress import TerminalReporter
    from gradstore_cli.tables import print_json

    opened = gradstore.open(store, parameters=parameters)
    done = "Already there:" if opened.has_index(normalise) else "Built"
    with TerminalReporter().steps("Building the index"):
        path = opened.build_index(normalise)
    n_bytes = path.stat().st_size
    typer.echo(f"{done} {path} ({human.size(n_bytes)}). Search it with --index flat --normalise {normalise}.", err=True)
    if as_json:
        found = {"index": str(path), "normalise": normalise, "parameters": opened.store.parameters, "bytes": n_bytes}
        print_json(found)
