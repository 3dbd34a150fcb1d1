"""One reader a format, one protocol for all: `ExampleSource` gives the rows of a data set by index.

`open_source` opens a path, `scan` checks and summarises it, `load_batch` makes what a Task sees.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradstore.data.open import open_source, reopen
from gradstore.data.scan import DataSummary, scan
from gradstore.data.source import ExampleSource, Rows

if TYPE_CHECKING:
    from gradstore.data.batch import load_batch

__all__ = ["DataSummary", "ExampleSource", "Rows", "load_batch", "open_source", "reopen", "scan"]


def __getattr__(name: str) -> Any:
    if name != "load_batch":
        raise AttributeError(f"module 'gradstore.data' has no attribute {name!r}")
    return import_module("gradstore.data.batch").load_batch  # loads torch, which reading data does not need
