"""Where a table of examples goes: a file, stdout as data, one JSON document, or a table on screen."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from gradstore_cli import human

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class TableOutput:
    """What --output, --format and --json ask for."""

    path: Path | None
    format: str | None
    as_json: bool

    def __post_init__(self) -> None:
        if self.as_json and self.path is None and self.format is not None:
            raise typer.BadParameter("--json and --format both write to stdout. Use one of them, or -o FILE.")
        if self.path is not None and not self.is_page:
            from gradstore.ranking.export import format_of

            format_of(self.path, self.format)  # refused now, not when everything has been computed

    @property
    def is_page(self) -> bool:
        """Whether the table leaves as an HTML page."""
        by_name = self.path is not None and self.path.suffix in (".html", ".htm")
        return self.format == "html" or (self.format is None and by_name)

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
