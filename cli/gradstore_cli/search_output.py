"""What `proponents`, `opponents` and `neighbours` share: how queries are asked, and how answers are given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from gradstore_cli.table_output import TableOutput

if TYPE_CHECKING:
    import pyarrow as pa

    from gradstore.api import GradientStore, Queries

QueryOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Examples to ask about, in any format that build reads; also one image."),
]
IdOption = Annotated[
    list[str] | None, typer.Option("--id", metavar="ID", help="Ask about this example of the store; repeatable.")
]
LabelsOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Labels of the --query examples.")]
KOption = Annotated[int, typer.Option("-k", min=1, metavar="N", help="Examples to find for each query.")]
Normalise = Literal["none", "cosine", "relatif"]
NormaliseOption = Annotated[
    Normalise,
    typer.Option(help="How scores are read: relatif and cosine keep large gradients from winning every time."),
]
IndexOption = Annotated[
    Literal["exact", "flat"], typer.Option(help="exact reads the store; flat needs gradstore index once.")
]
IncludeSelfOption = Annotated[bool, typer.Option("--include-self", help="Let an example given by --id find itself.")]
DeviceOption = Annotated[str, typer.Option(help="Where queries are evaluated and searched: cpu, cuda or cuda:N.")]
FormatOption = Annotated[
    Literal["parquet", "csv", "jsonl"] | None, typer.Option(help="Format of the file; without -o it goes to stdout.")
]

INFLUENCE_COLUMNS = ("query", "rank", "id", "label", "score")

_UNITS: dict[Normalise, str] = {
    "none": "The unit is the loss's: the sum over checkpoints of learning rate x gradient product.",
    "cosine": "The score is a cosine between -1 and 1: it has no unit and ignores how large gradients are.",
    "relatif": "The unit is the root of the loss's: influence divided by the root of the example's self-influence.",
}


@dataclass(frozen=True)
class Question:
    """Which queries are asked of which store."""

    store: Path
    query: Path | None
    ids: list[str] | None
    labels: Path | None
    device: str
    parameters: str | None = None
    labelled: bool = True
    """Whether the answer depends on the queries' labels."""

    def __post_init__(self) -> None:
        if (self.query is None) == (not self.ids):
            raise typer.BadParameter("Ask about --query FILE or about --id ID, one of the two.")
        if self.query is None and self.labels is not None:
            raise typer.BadParameter("--labels goes with --query; an example given by --id has its label already.")

    def open(self) -> tuple[GradientStore, Queries, Sequence[str]]:
        """The store, the queries as it takes them, and their names."""
        import gradstore
        from gradstore_pipelines.queries import open_queries

        opened = gradstore.open(self.store, parameters=self.parameters, device=self.device)
        if self.query is None:
            assert self.ids is not None
            return opened, self.ids, self.ids
        batch, names = open_queries(opened.store, self.query, self.labels, labelled=self.labelled)
        return opened, batch, names


def meaning_of(direction: Literal["proponents", "opponents"], normalise: Normalise) -> str:
    """What the sign and the unit of a score say."""
    sign = {
        "proponents": "A positive score: training on that example lowered the query's loss.",
        "opponents": "A negative score: training on that example raised the query's loss.",
    }
    return f"{sign[direction]} {_UNITS[normalise]}"


def give_answers(
    table: pa.Table, names: Sequence[str], meaning: str, output: TableOutput, columns: Sequence[str]
) -> None:
    """Print what scores mean (stderr) and deliver the table."""
    typer.echo(meaning, err=True)
    output.deliver(_named(table, names), columns, {"meaning": meaning})


def _named(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Queries by name; those of a batch are numbered as they come."""
    import pyarrow as pa

    n_found = table.num_rows // max(len(names), 1)
    column = [name for name in names for _ in range(n_found)]
    return table.set_column(0, "query", pa.array(column, pa.string()))
