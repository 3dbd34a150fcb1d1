"""Data on stdout: tables and values for a person, one JSON document for a program."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gradstore_cli import human

if TYPE_CHECKING:
    import pyarrow as pa

_UNWRAPPED = 10_000


@dataclass(frozen=True)
class Column:
    """Heading of a table's column."""

    name: str
    justify: Literal["left", "right"] = "left"


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, title: str | None = None) -> None:
    """Print a table; into a pipe or a file every row is one line, however long."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for column in columns:
        table.add_column(column.name, justify=column.justify, overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    _print_trimmed(table)


def print_values(values: Mapping[str, str]) -> None:
    """Print names and values in two columns."""
    width = max(map(len, values))
    for name, value in values.items():
        _stdout().print(_cell(f"{name:<{width}}  {value}"), soft_wrap=True)


def print_nested(document: Mapping[str, Any]) -> None:
    """Print nested JSON, a line a value, indented."""
    for line in _lines(document, ""):
        _stdout().print(_cell(line), soft_wrap=True)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """The rows as JSON values, the very ones that a `.jsonl` file holds."""
    from gradstore.ranking.export import export

    stream = io.BytesIO()
    export(table, stream, "jsonl")
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def print_examples(table: pa.Table, columns: Sequence[str]) -> None:
    """Print the named columns of a table of examples."""
    formats: dict[str, Callable[[Any], str]] = {
        **dict.fromkeys(("rank", "rank_a", "rank_b", "change"), human.count),
        "score": human.number,
        "distance": human.number,
        "percentile": _percent,
    }
    cells = [[_text(value, formats.get(name, str)) for value in table.column(name).to_pylist()] for name in columns]
    headings = [Column(name, "right" if name in formats else "left") for name in columns]
    print_table(headings, zip(*cells, strict=True))


def _print_trimmed(table: Table) -> None:
    console = _stdout()
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()).strip("\n"))


def _stdout() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, emoji=False, width=_UNWRAPPED)


def _text(value: Any, form: Callable[[Any], str]) -> str:
    return "" if value is None else form(value)


def _percent(value: float) -> str:
    from gradstore.ranking.combine import percent_text

    return f"{percent_text(value)} %"


def _cell(text: str) -> Text:
    """Ids and labels are other people's text: what would steer the terminal is shown as its escape."""
    return Text("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


def _lines(value: Mapping[str, Any] | list[Any], indent: str) -> Iterator[str]:
    entries = value.items() if isinstance(value, Mapping) else enumerate(value)
    for name, entry in entries:
        if _is_nested(entry):
            yield f"{indent}{name}:"
            yield from _lines(entry, indent + "  ")
        else:
            yield f"{indent}{name}: {_flat(entry, with_separators=name != 'seed')}"


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and any(isinstance(e, Mapping | list) for e in value))


def _flat(value: Any, *, with_separators: bool) -> str:
    """One value, or a list of them; a seed is an identifier and is shown as it is typed."""
    if isinstance(value, list):
        return ", ".join(_flat(entry, with_separators=with_separators) for entry in value)
    if isinstance(value, int) and not isinstance(value, bool) and with_separators:
        return human.count(value)
    return "none" if value is None else str(value)
