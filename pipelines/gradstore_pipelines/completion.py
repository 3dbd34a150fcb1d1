"""That a stage which writes files is finished: a small record, written last, of what was asked and what was written.

A record lies in the store's folder, under `build/run/`, one for each set of files. It holds when the same is asked of
the same rows, by the same version, and the files still have the bytes that were written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradstore.errors import StoreCorruptError
from gradstore.store.commits import FileHash
from gradstore.store.files import make_folder, write_atomically
from gradstore.store.sealed import require_sealed, sealed

_FOLDER = "build/run"


@dataclass(frozen=True)
class Completion:
    """Of one stage of a run, for one store."""

    folder: Path
    """the store's"""
    stage: str
    outputs: Sequence[Path]
    asked: Mapping[str, Any]
    """JSON: everything that the outputs depend on"""

    def holds(self) -> bool:
        """Whether the outputs are there, as this stage wrote them for what is asked now."""
        try:
            return require_sealed(self._file.read_text(encoding="utf-8"), self._file.name) == self._document()
        except (OSError, UnicodeDecodeError, StoreCorruptError):
            return False

    def record(self) -> None:
        """Note that the outputs have been written.

        Raises:
            StoreWriteError: no room, or no permission.
        """
        make_folder(self._file.parent)
        write_atomically(self._file, sealed(self._document()).encode())

    @property
    def _file(self) -> Path:
        names = "\0".join(str(path.absolute()) for path in self.outputs)
        digest = hashlib.blake2b(names.encode(errors="surrogateescape"), digest_size=8).hexdigest()
        return self.folder / _FOLDER / f"{self.stage}-{digest}.json"

    def _document(self) -> dict[str, Any]:
        hashes = {str(path.absolute()): FileHash.read(path).sha256 for path in self.outputs}
        return {"stage": self.stage, "asked": dict(self.asked), "outputs": hashes}
