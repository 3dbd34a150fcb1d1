"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

StoreArgument = Annotated[
    str,
    typer.Argument(metavar="STORE", help="The gradient store: a folder, or s3://bucket/prefix.", show_default=False),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
ParametersOption = Annotated[
    str | None,
    typer.Option(
        "--parameters", metavar="NAME", help="Whose gradients: a set that build tracked; by default its first."
    ),
]
OutputOption = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write a file; its extension names the format.")
]
