"""What `proponents`, `opponents` and `neighbours` share: how queries are asked, and how answers are given."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gradstore_cli.table_output import TableOutput

if TYPE_CHECKING:
    import pyarrow as pa

    from gradstore.api import GradientStore
    from gradstore.report.answers import Tone
    from gradstore.store import Store
    from gradstore.task import Batch

QueryOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Examples to ask about, in any format that build reads; also one image."),
]
IdOption = Annotated[
    list[str] | None, typer.Option("--id", metavar="ID", help="Ask about this example of the store; repeatable.")
]
LabelsOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Labels of the --query examples.")]
KOption = Annotated[int, typer.Option("-k", min=1, metavar="N", help="Examples to find for each query.")]
IncludeSelfOption = Annotated[bool, typer.Option("--include-self", help="Let an example given by --id find itself.")]
DeviceOption = Annotated[str, typer.Option(help="Where queries are evaluated and searched: cpu, cuda or cuda:N.")]
OnlyLabelOption = Annotated[
    list[str] | None, typer.Option("--only-label", metavar="NAME", help="Find only this class; repeatable.")
]
OnlyIdsOption = Annotated[
    Path | None,
    typer.Option("--only-ids", metavar="FILE", help="Find only these examples: ids in a text, CSV or Parquet file."),
]
FormatOption = Annotated[
    Literal["parquet", "csv", "jsonl"] | None, typer.Option(help="Format of the file; without -o it goes to stdout.")
]
PictureFormatOption = Annotated[
    Literal["parquet", "csv", "jsonl", "html", "png"] | None,
    typer.Option(help="Format of the file; without -o it goes to stdout. html and png show the examples themselves."),
]


@dataclass(frozen=True)
class Question:
    """Which queries are asked of which store."""

    store: str
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

    def open(self) -> tuple[GradientStore, Batch | list[str], Sequence[str]]:
        """The store, the queries as it takes them, and their names."""
        import gradstore
        from gradstore_pipelines.queries import open_queries

        opened = gradstore.open(self.store, parameters=self.parameters, device=self.device)
        if self.query is None:
            assert self.ids is not None
            return opened, self.ids, self.ids
        batch, names = open_queries(opened.store, self.query, self.labels, labelled=self.labelled)
        return opened, batch, names


def read_ids(file: Path) -> list[str]:
    """Ids in a file; QueryError where there are none (`gradstore.store.id_files`)."""
    from gradstore.store import id_files

    return id_files.read_ids(file)


def give_answers(
    table: pa.Table, names: Sequence[str], meaning: str, output: TableOutput, columns: Sequence[str]
) -> None:
    """Print what scores mean and which search answered (stderr), and deliver the table."""
    typer.echo(meaning, err=True)
    output.deliver(named(table, names), columns, {"meaning": meaning, **about_search(table)})


def give_picture(
    store: Store,
    queries: Batch | list[str],
    names: Sequence[str],
    lists: Sequence[tuple[str, str, Tone, pa.Table]],
    meaning: str,
    output: TableOutput,
    facts: Mapping[str, str],
) -> None:
    """Write a page or an image of the answers, and say on stderr what a table says there.

    Args:
        lists: of each its name, what it says of a query, its colour, and the answers.
        facts: what was asked for.
    """
    from gradstore_cli.tables import print_json
    from gradstore_pipelines.answers import Asked, Listing, write_answers

    assert output.path is not None
    assert output.picture is not None
    typer.echo(meaning, err=True)
    about = about_search(lists[0][3])
    listings = [Listing(name=name, meaning=means, tone=tone, table=table) for name, means, tone, table in lists]
    asked = Asked(queries=queries, names=names)
    notes = write_answers(store, asked, listings, output.path, output.picture, meaning=meaning, facts=facts)
    for note in notes:
        typer.echo(note, err=True)
    typer.echo(f"Wrote {output.path}", err=True)
    if output.as_json:
        print_json({"meaning": meaning, **about, "written": str(output.path), "notes": list(notes)})


def about_search(table: pa.Table) -> dict[str, Any]:
    """Say which search answered, and of how much of the store; the same for the head of a JSON document."""
    from gradstore.api import COVERAGE, SEARCHED

    metadata, about = table.schema.metadata or {}, dict[str, Any]()
    if SEARCHED.encode() in metadata:
        about["search"] = json.loads(metadata[SEARCHED.encode()])
        typer.echo(_search_in_words(about["search"]), err=True)
    if COVERAGE.encode() in metadata:
        about["coverage"] = json.loads(metadata[COVERAGE.encode()])
        _say_what_is_missing(about["coverage"])
    return about


def _search_in_words(search: dict[str, Any]) -> str:
    from gradstore.search.auto import Choice

    return str(Choice(**search))


def _say_what_is_missing(coverage: dict[str, int]) -> None:
    from gradstore.search.searchable import Coverage

    found = Coverage(**coverage)
    if not found.is_complete:
        typer.echo(f"The store's build has not finished: this is from {found}. Build on, and ask again.", err=True)


def named(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Queries by name; those of a batch are numbered as they come."""
    import pyarrow as pa

    n_found = table.num_rows // max(len(names), 1)
    column = [name for name in names for _ in range(n_found)]
    return table.set_column(0, "query", pa.array(column, pa.string()))
