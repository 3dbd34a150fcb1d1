"""`gradstore neighbours`: the examples nearest to a query in the model's latent space."""

from __future__ import annotations

from typing import Annotated

import typer

from gradstore_cli.options import JsonOption, OutputOption, StoreArgument
from gradstore_cli.search_output import (
    DeviceOption,
    FormatOption,
    IdOption,
    IncludeSelfOption,
    KOption,
    QueryOption,
    Question,
    give_answers,
)
from gradstore_cli.table_output import TableOutput

_COLUMNS = ("query", "rank", "id", "label", "score", "distance")
_MEANING = (
    "The score is 1 / (distance in latent space + a little): higher is nearer, and the sign says nothing. "
    "Labels and losses play no part."
)


def neighbours(
    store: StoreArgument,
    query: QueryOption = None,
    ids: IdOption = None,
    k: KOption = 10,
    checkpoint: Annotated[int, typer.Option(help="Whose latent space: 0 is the first, -1 the last.")] = -1,
    include_self: IncludeSelfOption = False,
    device: DeviceOption = "cpu",
    output: OutputOption = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the examples nearest to a query in the model's latent space.

    Example:
      gradstore neighbours digits.store --id digit-0007
      gradstore neighbours digits.store --query digit.png -k 5 --json
    """
    destination = TableOutput(output, format, as_json)
    opened, queries, names = Question(store, query, ids, None, device, labelled=False).open()
    table = opened.neighbours(queries, k, checkpoint=checkpoint, include_self=include_self)
    give_answers(table, names, _MEANING, destination, _COLUMNS)
