"""Answers as a page or an image: what a search found, with the examples themselves, read from the data again.

A sheet is to be looked at, so it shows as many queries as a person may want to scroll through, and says how many it
leaves out; a table holds them all. Pictures are reduced as they are read: memory does not depend on their size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from gradstore.data import ExampleSource, reopen
from gradstore.errors import SourceError
from gradstore.report.answers import MOSAIC, Answer, End, Found, Sheet, Tone, html
from gradstore.report.drawing import Example
from gradstore.report.grid import png
from gradstore.report.pictures import is_image, reduced
from gradstore.store import Store
from gradstore.store.files import write_atomically
from gradstore.task import Batch
from gradstore_pipelines.report import short_path

Form = Literal["html", "png"]

_MOST_EXAMPLES: dict[Form, int] = {"html": 1000, "png": 400}
_MOST_FOUND = 50
_SIDE = 192
_AT_ONCE = 64


@dataclass(frozen=True, eq=False, kw_only=True)
class Listing:
    """One list of every query, as a search gives it: k rows a query, in the order of the queries."""

    name: str
    meaning: str
    tone: Tone
    table: pa.Table


@dataclass(frozen=True, eq=False, kw_only=True)
class Asked:
    """What was asked: the queries as the search took them, and what they are called."""

    queries: Batch | Sequence[str]
    names: Sequence[str]
    """one a query, or a single one where all were asked together"""

    @property
    def is_one(self) -> bool:
        """Whether several queries were asked as one."""
        return len(self.names) == 1 and len(self.queries) > 1

    def members(self, number: int) -> list[int]:
        """The queries behind an answer, as many as are shown."""
        return list(range(min(len(self.queries), MOSAIC))) if self.is_one else [number]


def write_answers(
    store: Store,
    asked: Asked,
    lists: Sequence[Listing],
    path: Path,
    form: Form,
    *,
    meaning: str,
    facts: Mapping[str, str],
) -> Sequence[str]:
    """Write the sheet.

    Args:
        meaning: what sign and unit of a score say.
        facts: what was asked for, shown beside what the store says of itself.

    Returns:
        Sentences on what it does not show: pictures, because the data are gone, or queries, because they are many.

    Raises:
        StoreWriteError: no room, no permission.
    """
    shown = [_slice(listing, asked, form) for listing in lists]
    pictures, notes = _pictures(store, _ids(asked, shown))
    labels = _labels(store, asked, len(shown[0]))
    answers = [_answer(asked, number, label, shown, pictures) for number, label in enumerate(labels)]
    notes = [*notes, *_left_out(asked, lists, shown)]
    facts = {**_facts(store), **facts}
    sheet = Sheet(title=_title(asked, lists), meaning=meaning, answers=answers, facts=facts, notes=notes)
    write_atomically(path, html(sheet).encode() if form == "html" else png(sheet))
    return notes


def _title(asked: Asked, lists: Sequence[Listing]) -> str:
    """The question, short enough to be a heading."""
    together = " together" if asked.is_one else ""
    what = f"query {asked.names[0]}" if len(asked.queries) == 1 else f"{len(asked.queries):,} queries{together}"
    return f"{lists[0].name} of {what}" if len(lists) == 1 else f"What lies behind {what}"


def _facts(store: Store) -> dict[str, str]:
    return {
        "Store": short_path(store.location if store.place.local() is None else store.folder.resolve()),
        "Examples": f"{store.n_examples:,}",
        "Gradients of": store.parameters,
    }


@dataclass(frozen=True, eq=False)
class _Shown:
    """The part of a listing that a sheet has room for: rows by query."""

    listing: Listing
    rows: Sequence[Sequence[Mapping[str, Any]]]

    def __len__(self) -> int:
        return len(self.rows)


def _slice(listing: Listing, asked: Asked, form: Form) -> _Shown:
    k = listing.table.num_rows // max(len(asked.names), 1)
    shown = min(k, _MOST_FOUND)
    n_queries = min(len(asked.names), max(1, _MOST_EXAMPLES[form] // (2 * shown)))
    return _Shown(listing, [listing.table.slice(q * k, shown).to_pylist() for q in range(n_queries)])


def _left_out(asked: Asked, lists: Sequence[Listing], shown: Sequence[_Shown]) -> Iterator[str]:
    n_queries, k = len(asked.names), lists[0].table.num_rows // max(len(asked.names), 1)
    if len(shown[0]) < n_queries:
        yield f"Shown are the first {len(shown[0])} of {n_queries:,} queries; a table (-o FILE.parquet) holds them all."
    if k > _MOST_FOUND:
        yield f"Shown are the first {_MOST_FOUND} of {k:,} examples of each list; a table (-o FILE.csv) holds them all."


def _ids(asked: Asked, shown: Sequence[_Shown]) -> list[str]:
    """Every example of the store that is shown, once."""
    ids = [str(row["id"]) for part in shown for rows in part.rows for row in rows]
    if not isinstance(asked.queries, Batch):
        ids += [asked.queries[query] for number in range(len(shown[0])) for query in asked.members(number)]
    return list(dict.fromkeys(ids))


def _pictures(store: Store, ids: list[str]) -> tuple[dict[str, Example], list[str]]:
    """The examples by id; none, and why, where the data are gone or are others now."""
    made_from = store.manifest.provenance.get("source")
    if made_from is None:
        return {}, ["There are no pictures, for the store does not say which data it was made from."]
    try:
        return dict(zip(ids, _examples(store, reopen(made_from), ids), strict=True)), []
    except (SourceError, OSError) as error:
        return {}, [f"There are no pictures, for the store's data cannot be read: {error}"]


def _examples(store: Store, source: ExampleSource, ids: list[str]) -> Iterator[Example]:
    rows = store.row_of(ids)
    for start in range(0, len(ids), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        if len(source) != store.n_examples or source.ids(part) != ids[start : start + _AT_ONCE]:
            raise SourceError(f"'{source.describe()['path']}' holds other examples than the store was made from.")
        yield from map(_light, source.rows(part))


def _light(example: Example) -> Example:
    return reduced(example, _SIDE) if not isinstance(example, str) and is_image(example) else example


def _answer(
    asked: Asked, number: int, label: str | None, shown: Sequence[_Shown], pictures: Mapping[str, Example]
) -> Answer:
    return Answer(
        query=asked.names[number],
        label=label,
        examples=_query_examples(asked, number, pictures),
        ends=[_end(part, number, pictures) for part in shown],
    )


def _end(part: _Shown, number: int, pictures: Mapping[str, Example]) -> End:
    names = ("id", "score", "label", "path")
    found = [Found(example=pictures.get(row["id"]), **{name: row[name] for name in names}) for row in part.rows[number]]
    return End(name=part.listing.name, meaning=part.listing.meaning, tone=part.listing.tone, found=found)


def _query_examples(asked: Asked, number: int, pictures: Mapping[str, Example]) -> list[Example]:
    members = asked.members(number)
    if isinstance(asked.queries, Batch):
        return [_light(asked.queries.inputs[query].numpy()) for query in members]
    return [pictures[asked.queries[query]] for query in members if asked.queries[query] in pictures]


def _labels(store: Store, asked: Asked, n_shown: int) -> list[str | None]:
    """Of each query that is shown; a set of queries has none."""
    queries, names = asked.queries, store.manifest.label_names
    if asked.is_one:
        return [None]
    if not isinstance(queries, Batch):
        labels: list[str | None] = store.examples_at(store.row_of(queries[:n_shown])).column("label").to_pylist()
        return labels
    if queries.labels is None or names is None:
        return [None] * n_shown
    return [names[number] for number in queries.labels[:n_shown].tolist()]
