"""Where a table of examples goes: a file, stdout as data, one JSON document, or a table on screen."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from gradstore_cli import human

if TYPE_CHECKING:
    import pyarrow as pa

Picture = Literal["html", "png"]


@dataclass(frozen=True)
class TableOutput:
    """What --output, --format and --json ask for; refused now, not when everything has been computed."""

    path: Path | None
    format: str | None
    as_json: bool
    pictures: tuple[Picture, ...] = ()
    """formats to look at that this command writes besides tables: html, png"""

    def __post_init__(self) -> None:
        if self.as_json and self.path is None and self.format is not None:
            raise typer.BadParameter("--json and --format both write to stdout. Use one of them, or -o FILE.")
        if self.path is None:
            if self.format in self.pictures:
                raise typer.BadParameter(f"A picture needs a file: pass -o FILE.{self.format}.")
            return
        self._require_format(self.path)
        self._require_folder(self.path)

    @property
    def picture(self) -> Picture | None:
        """Where the answer leaves as something to look at, which."""
        found = None if self.path is None else self._require_format(self.path)
        return next((form for form in self.pictures if form == found), None)

    @property
    def is_file(self) -> bool:
        """Whether the table leaves as a file's bytes, on disk or through stdout."""
        return self.path is not None or self.format is not None

    def deliver(self, table: pa.Table, columns: Sequence[str], about: Mapping[str, Any]) -> None:
        """Write the table; on screen only some of its columns. `about` heads the JSON document."""
        from gradstore.ranking.export import export

        if self.path is not None:
            export(table, self.path, self.format)
            self.say_written(table, about)
        elif self.format is not None:
            export(table, sys.stdout.buffer, self.format)
        else:
            self._print(table, columns, about)

    def say_written(self, table: pa.Table, about: Mapping[str, Any]) -> None:
        """Tell what the file holds."""
        from gradstore_cli.tables import print_json

        typer.echo(f"Wrote {human.count(table.num_rows, 'row')} to {self.path}", err=True)
        if self.as_json:
            print_json({**about, "written": str(self.path), "n_rows": table.num_rows})

    def _print(self, table: pa.Table, columns: Sequence[str], about: Mapping[str, Any]) -> None:
        from gradstore_cli.tables import print_examples, print_json, rows_of

        if self.as_json:
            print_json({**about, "n_rows": table.num_rows, "rows": rows_of(table)})
        else:
            print_examples(table, columns)

    def _require_format(self, path: Path) -> str:
        from gradstore.ranking.export import format_of

        return format_of(path, self.format, self.pictures)

    @staticmethod
    def _require_folder(path: Path) -> None:
        from gradstore.errors import QueryError

        if not path.parent.is_dir():
            raise QueryError(
                f"There is no folder '{path.parent}' to write '{path.name}' into. Make it, or choose another path."
            )
        if path.is_dir():
            raise QueryError(f"'{path}' is a folder. Give the name of a file in it: -o {path / 'answer.csv'}")
