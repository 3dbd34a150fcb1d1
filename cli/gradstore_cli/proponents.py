"""`gradstore proponents`: the training examples that lower a query's loss."""

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


def proponents(
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
    """Find the training examples that most lowered a query's loss.

    Example:
      gradstore proponents digits.store --id digit-0007
      gradstore proponents digits.store --query digit.png --normalise relatif -k 5
    """
    destination = TableOutput(output, format, as_json)
    opened, queries, names = Question(store, query, ids, labels, device, parameters).open()
    table = opened.proponents(queries, k, normalise=normalise, index=index, include_self=include_self)
    give_answers(table, names, meaning_of("proponents", normalise), destination, INFLUENCE_COLUMNS)
