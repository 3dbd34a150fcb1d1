"""`gradstore opponents`: the training examples that raise a query's loss."""

from __future__ import annotations

from gradstore_cli.options import JsonOption, OutputOption, ParametersOption, StoreArgument
from gradstore_cli.search_output import (
    INFLUENCE_COLUMNS,
    DeviceOption,
    FormatOption,
    IdOption,
    IncludeSelfOption,
    IndexOption,
    KOption,
    LabelsOption,
    NormaliseOption,
    QueryOption,
    Question,
    give_answers,
    meaning_of,
)
from gradstore_cli.table_output import TableOutput


def opponents(
    store: StoreArgument,
    query: QueryOption = None,
    ids: IdOption = None,
    k: KOption = 10,
    parameters: ParametersOption = None,
    normalise: NormaliseOption = "none",
    index: IndexOption = "exact",
    labels: LabelsOption = None,
    include_self: IncludeSelfOption = False,
    device: DeviceOption = "cpu",
    output: OutputOption = None,
    format: FormatOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find the training examples that most raised a query's loss.

    Example:
      gradstore opponents digits.store --id digit-0007
      gradstore opponents digits.store --query digit.png -o opponents.csv
    """
    destination = TableOutput(output, format, as_json)
    opened, queries, names = Question(store, query, ids, labels, device, parameters).open()
    table = opened.opponents(queries, k, normalise=normalise, index=index, include_self=include_self)
    give_answers(table, names, meaning_of("opponents", normalise), destination, INFLUENCE_COLUMNS)
