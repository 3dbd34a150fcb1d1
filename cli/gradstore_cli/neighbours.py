"""`gradstore neighbours`: the examples nearest to a query in the model's latent space."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gradstore_cli.options import JsonOption, OutputOption, StoreArgument
from gradstore_cli.search_output import (
    DeviceOption,
    IdOption,
    IncludeSelfOption,
    KOption,
    OnlyIdsOption,
    OnlyLabelOption,
    PictureFormatOption,
    QueryOption,
    Question,
    give_answers,
    give_picture,
    read_ids,
)
from gradstore_cli.table_output import TableOutput

if TYPE_CHECKING:
    import pyarrow as pa

    from gradstore.report.answers import Tone
    from gradstore.search.filters import Filter
    from gradstore.store import Store

MetricOption = Annotated[
    Literal["l2", "cosine"], typer.Option(help="How far apart: the Euclidean distance, or 1 - the cosine.")
]

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
    metric: MetricOption = "l2",
    checkpoint: Annotated[
        list[int] | None,
        typer.Option(help="Whose latent space: 0 is the first, -1 the last (default). Repeatable: over all of these."),
    ] = None,
    only_label: OnlyLabelOption = None,
    only_ids: OnlyIdsOption = None,
    include_self: IncludeSelfOption = False,
    device: DeviceOption = "cpu",
    output: OutputOption = None,
    format: PictureFormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the examples nearest to a query in the model's latent space.

    Columns: query, rank (1 is the nearest), id, label and path of the example
    found, score (its importance, 1 / distance), distance. -o FILE.html or FILE.png
    shows the examples themselves.

    Example:
      gradstore neighbours digits.store --id digit-0007
      gradstore neighbours digits.store --query digit.png -k 5 --json
      gradstore neighbours digits.store --id digit-0007 --metric cosine --only-label 3
    """
    destination = TableOutput(output, format, as_json, pictures=("html", "png"))
    opened, queries, names = Question(store, query, ids, None, device, labelled=False).open()
    table = opened.neighbours(
        queries,
        k,
        checkpoint=checkpoint or [-1],
        metric=metric,
        filter=_filter(opened.store, only_label, only_ids),
        include_self=include_self,
    )
    if not destination.picture:
        give_answers(table, names, _MEANING, destination, _COLUMNS)
        return
    lists: list[tuple[str, str, Tone, pa.Table]] = [("Neighbours", "nearest first, in latent space", "plain", table)]
    give_picture(opened.store, queries, names, lists, _MEANING, destination, {"Metric": metric})


def _filter(store: Store, labels: list[str] | None, ids: Path | None) -> Filter | None:
    from gradstore.search.filters import Filter

    of_labels = Filter.of_labels(store, labels) if labels else None
    if ids is None:
        return of_labels
    of_ids = Filter.of_ids(store, read_ids(ids))
    return of_ids if of_labels is None else of_labels & of_ids
