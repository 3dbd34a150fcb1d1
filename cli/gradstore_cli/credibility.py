"""`gradstore credibility`: which label an example's neighbours speak for, and how usual that is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradstore_cli.neighbours import MetricOption
from gradstore_cli.options import JsonOption, OutputOption, StoreArgument
from gradstore_cli.search_output import (
    DeviceOption,
    FormatOption,
    IdOption,
    QueryOption,
    Question,
    give_answers,
    read_ids,
)
from gradstore_cli.table_output import TableOutput

_COLUMNS = ("query", "label", "predicted", "credibility", "confidence")
_MEANING = (
    "Credibility is near 0 where the neighbours agree on no label as they do for other examples; confidence is near 1 "
    "where no second label comes close."
)


def credibility(
    store: StoreArgument,
    query: QueryOption = None,
    ids: IdOption = None,
    k: Annotated[int, typer.Option("-k", min=1, metavar="N", help="Neighbours at each checkpoint.")] = 75,
    calibration: Annotated[
        float | None,
        typer.Option(help="Share of the labelled examples that say what is usual; by default a tenth, at most 750."),
    ] = None,
    calibration_ids: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Or their ids, one a line; best such as the model did not learn from."),
    ] = None,
    metric: MetricOption = "l2",
    checkpoint: Annotated[
        list[int] | None,
        typer.Option(help="Whose latents to look at: 0 is the first, -1 the last. Repeatable; by default all."),
    ] = None,
    p_values: Annotated[bool, typer.Option("--p-values", help="Also a column p(LABEL) for every label.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the calibration examples.")] = 0,
    device: DeviceOption = "cpu",
    output: OutputOption = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which label an example's neighbours speak for, and how far to believe it.

    Columns: query, predicted (the label that its neighbours in latent space speak
    for), credibility (its p-value, 0 to 1), confidence (1 - the p-value of the next
    label), label (the one it has in the store). Needs a store with labels.

    Example:
      gradstore credibility digits.store --id digit-0007
      gradstore credibility digits.store --query digit.png -k 20 --p-values --json
    """
    if calibration is not None and calibration_ids is not None:
        raise typer.BadParameter("Give --calibration or --calibration-ids, one of the two.")
    destination = TableOutput(output, format, as_json)
    opened, queries, names = Question(store, query, ids, None, device, labelled=False).open()
    table = opened.credibility(
        queries,
        k,
        calibration=calibration if calibration_ids is None else read_ids(calibration_ids),
        checkpoints=checkpoint,
        metric=metric,
        seed=seed,
        p_values=p_values,
    )
    give_answers(table, names, _MEANING, destination, _COLUMNS)
