"""`gradstore index`: a search index for proponents and opponents."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from gradstore_cli import human
from gradstore_cli.options import JsonOption, ParametersOption, StoreArgument

MemoryOption = Annotated[
    str, typer.Option(metavar="SIZE", help="Memory that building it may take, such as 500MB or 4GB.")
]


def index(
    store: StoreArgument,
    kind: Annotated[
        Literal["flat", "rabitq", "ivf-sq8", "ivf-pq", "hnsw"],
        typer.Option(help="rabitq is small and quick to build; flat finds everything; the others are for comparison."),
    ] = "rabitq",
    normalise: Annotated[
        Literal["none", "cosine", "relatif"],
        typer.Option(help="The reading that it serves; cosine and relatif share one index."),
    ] = "none",
    memory: MemoryOption = "1GB",
    parameters: ParametersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Build an index that makes single questions to many examples faster.

    It proposes examples, and the store itself settles scores and order, so scores are exact. How many of the best
    examples it finds is measured while it is built.

    Example:
      gradstore index digits.store
      gradstore index digits.store --kind flat --memory 4GB
      gradstore proponents digits.store --id digit-0007
    """
    import gradstore
    from gradstore.search.recall import in_words
    from gradstore_cli.progress import TerminalReporter
    from gradstore_cli.tables import print_json

    allowed = _n_bytes(memory)
    opened = gradstore.open(store, parameters=parameters)
    done = "Already there:" if opened.has_index(normalise, kind) else "Built"
    with TerminalReporter().steps("Building the index"):
        path = opened.build_index(normalise, kind, memory=allowed)
    n_bytes, recall = path.stat().st_size, opened.index(normalise, kind).recall
    typer.echo(f"{done} {path} ({human.size(n_bytes)}; {in_words(recall)}).", err=True)
    typer.echo(f"Searches use it where that is faster; --index {kind} --normalise {normalise} asks for it.", err=True)
    if as_json:
        about = {"kind": kind, "normalise": normalise, "parameters": opened.store.parameters}
        print_json({"index": str(path), **about, "bytes": n_bytes, "recall": recall})


def _n_bytes(text: str) -> int:
    from gradstore_pipelines.recipe_settings import n_bytes
    from gradstore_pipelines.settings_error import SettingsError

    try:
        return n_bytes(text)
    except SettingsError as error:
        raise typer.BadParameter(str(error)) from None
