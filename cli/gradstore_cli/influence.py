"""What `proponents` and `opponents` are: one command with two names, for the two ends of one list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from gradstore_cli.options import JsonOption, OutputOption, ParametersOption, StoreArgument
from gradstore_cli.search_output import (
    DeviceOption,
    IdOption,
    IncludeSelfOption,
    KOption,
    LabelsOption,
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
    from gradstore.search.influence import SearchOptions

End = Literal["proponents", "opponents"]
Normalise = Literal["none", "cosine", "relatif"]
Index = Literal["auto", "exact", "flat", "rabitq", "ivf-sq8", "ivf-pq", "hnsw"]

_COLUMNS = ("query", "rank", "id", "label", "score")
_SIGNS: dict[End, str] = {
    "proponents": "A positive score: training on that example lowered the query's loss.",
    "opponents": "A negative score: training on that example raised the query's loss.",
}
_UNITS: dict[tuple[Normalise, bool], str] = {
    ("none", False): "The unit is the loss's: the sum over checkpoints of learning rate x gradient product.",
    ("cosine", False): "The score is a cosine between -1 and 1: it has no unit and ignores how large gradients are.",
    ("relatif", False): "The unit is the root of the loss's: influence divided by the root of the example's "
    "self-influence.",
    ("none", True): "Compared in leverage's metric, where what all gradients share counts little; the unit is a "
    "learning rate's.",
    ("cosine", True): "The score is a cosine in leverage's metric, between -1 and 1, without a unit.",
    ("relatif", True): "Compared in leverage's metric and divided by the root of the example's leverage; compare "
    "scores within a list.",
}


def influence_command(end: End, help: str) -> Callable[..., None]:
    """The command for one end of the list, under its own help text."""

    def command(
        store: StoreArgument,
        query: QueryOption = None,
        ids: IdOption = None,
        k: KOption = 10,
        reduce: Annotated[
            Literal["mean"] | None, typer.Option(help="mean: one answer to all queries together, by their mean score.")
        ] = None,
        normalise: Annotated[
            Normalise,
            typer.Option(help="How scores are read: relatif and cosine keep large gradients from winning every time."),
        ] = "none",
        preconditioned: Annotated[
            bool, typer.Option("--preconditioned", help="In leverage's metric: what all gradients share counts little.")
        ] = False,
        damping: Annotated[
            float | None, typer.Option(min=0.0, help="Of --preconditioned, relative; 0.001 by default.")
        ] = None,
        checkpoint: Annotated[
            list[int] | None,
            typer.Option(metavar="N", help="Sum over this one: 0 is the first, -1 the last. Repeatable; default all."),
        ] = None,
        parameters: ParametersOption = None,
        only_label: OnlyLabelOption = None,
        only_ids: OnlyIdsOption = None,
        exclude_duplicates: Annotated[
            bool, typer.Option("--exclude-duplicates", help="Leave out exact copies of a query.")
        ] = False,
        include_self: IncludeSelfOption = False,
        index: Annotated[
            Index,
            typer.Option(help="exact reads the store; the others need gradstore index once; auto picks, and says why."),
        ] = "auto",
        require_complete: Annotated[
            bool, typer.Option("--require-complete", help="Refuse a store whose build has not finished.")
        ] = False,
        labels: LabelsOption = None,
        device: DeviceOption = "cpu",
        output: OutputOption = None,
        format: PictureFormatOption = None,
        as_json: JsonOption = False,
    ) -> None:
        destination = TableOutput(output, format, as_json, pictures=("html", "png"))
        options = {
            "reduce": reduce,
            "normalise": normalise,
            "preconditioned": preconditioned,
            "damping": damping,
            "checkpoints": checkpoint,
            "labels": only_label,
            "among": None if only_ids is None else read_ids(only_ids),
            "exclude_duplicates": exclude_duplicates,
            "include_self": include_self,
            "index": index,
            "require_complete": require_complete,
        }
        given = {name: value for name, value in options.items() if value is not None}
        asked = _Asked(Question(store, query, ids, labels, device, parameters), k, cast("SearchOptions", given))
        asked.look(destination) if destination.picture else asked.list(end, destination)

    command.__name__, command.__doc__ = end, help
    return command


@dataclass(frozen=True)
class _Asked:
    """A question, and the two ways to answer it."""

    question: Question
    k: int
    options: SearchOptions

    def list(self, end: End, destination: TableOutput) -> None:
        """A table of one end."""
        opened, queries, names = self.question.open()
        search = {"proponents": opened.proponents, "opponents": opened.opponents}[end]
        table = search(queries, self.k, **self.options)
        give_answers(table, self._names(names, table), f"{_SIGNS[end]} {self._unit()}", destination, _COLUMNS)

    def look(self, destination: TableOutput) -> None:
        """A picture of both: one pass over the store finds them, and each is best seen beside the other."""
        opened, queries, names = self.question.open()
        proponents, opponents = opened.both_ends(queries, self.k, **self.options)
        lists: list[tuple[str, str, Tone, pa.Table]] = [
            ("Proponents", "training on these lowered the query's loss", "cool", proponents),
            ("Opponents", "training on these raised it", "hot", opponents),
        ]
        meaning = f"{' '.join(_SIGNS.values())} {self._unit()}"
        give_picture(opened.store, queries, self._names(names, proponents), lists, meaning, destination, self._facts())

    def _names(self, names: Sequence[str], table: pa.Table) -> Sequence[str]:
        """Those of the queries; where they were asked together, the table's own word for them."""
        return names if "reduce" not in self.options else [table.column("query")[0].as_py()]

    def _unit(self) -> str:
        return _UNITS[self.options.get("normalise", "none"), self.options.get("preconditioned", False)]

    def _facts(self) -> dict[str, str]:
        """What was asked for, but for what is so by default."""
        words = {
            "Read as": None if self.options.get("normalise") == "none" else self.options.get("normalise"),
            "Preconditioned": "yes" if self.options.get("preconditioned") else None,
            "Checkpoints": _joined(self.options.get("checkpoints")),
            "Only": _joined(self.options.get("labels")),
            "Among": f"{len(among):,} ids" if isinstance(among := self.options.get("among"), Sequence) else None,
        }
        return {name: value for name, value in words.items() if value is not None}


def _joined(values: Sequence[object] | None) -> str | None:
    return None if values is None else ", ".join(map(str, values))
