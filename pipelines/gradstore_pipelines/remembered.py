"""What an earlier run found out about the data, so that a run that goes on does not read them all again.

Opening a source decodes every image, or checks an archive's checksums, and scanning it reads every row. What they found
is kept in `build/scan.json` with the stamp of the files; it holds while the same is asked and nobody touches the files.

`--on-corrupt` is not among what must be the same: which images were left out has been agreed to, so the plain command
finishes a store that was begun with `skip`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gradstore.data import DataSummary, ExampleSource, reopen
from gradstore.errors import SourceError
from gradstore.store.place import is_url
from gradstore.store.sealed import require_sealed, sealed
from gradstore_pipelines.settings import BuildSettings

SCAN = "build/scan.json"


def remembered_data(settings: BuildSettings) -> tuple[ExampleSource, DataSummary] | None:
    """The data as an earlier run of the same settings opened and scanned them; None where that is not what they are."""
    try:
        known = require_sealed(settings.place.read(SCAN).decode(), SCAN)
        if known["asked"] != _asked(settings):
            return None
        source = reopen(known["source"])
        return (source, DataSummary.from_json(known["summary"])) if source.stamp() == known["stamp"] else None
    except (OSError, ValueError, KeyError, SourceError):  # nothing there, of an older version, or the data have changed
        return None


def remember_data(settings: BuildSettings, source: ExampleSource, summary: DataSummary) -> None:
    """Keep what was found.

    Raises:
        StoreWriteError: no room, or no permission.
    """
    found = {"stamp": source.stamp(), "summary": summary.to_json(), "source": source.describe()}
    settings.place.write(SCAN, sealed({"asked": _asked(settings), **found}).encode())


def _asked(settings: BuildSettings) -> dict[str, Any]:
    """The settings that decide how the data are read."""
    files = {name: getattr(settings, name) for name in ("source", "labels")}
    return {name: None if file is None else _absolute(file) for name, file in files.items()} | {
        "image_size": settings.image_size
    }


def _absolute(location: Path | str) -> str:
    return str(location) if is_url(location) else str(Path(location).absolute())
