"""Which code makes the rows: a worker with other code would write other bytes into the same store, and nobody would
see it.

Why the sources are hashed and not only the version compared: of two installations from two commits, both say the same
version. Python and the operating system are not part of it: they do not change a bit of a row.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Code:
    """Versions of what computes a row, and a hash over gradstore's own sources."""

    gradstore: str
    sources: str
    torch: str
    numpy: str

    def differences(self, other: Code) -> list[str]:
        """One phrase a value that differs, this one's first.

        >>> Code("1.0", "a", "2.6", "2.0").differences(Code("1.1", "a", "2.6", "2.0"))
        ['gradstore 1.0 instead of 1.1']
        """
        mine, theirs = asdict(self), asdict(other)
        return [f"{name} {mine[name]} instead of {theirs[name]}" for name in mine if mine[name] != theirs[name]]


@functools.cache
def code_here() -> Code:
    """Of this process."""
    import numpy as np
    import torch

    import gradstore

    return Code(gradstore.__version__, _hash_of_sources()[:12], torch.__version__, np.__version__)


def _hash_of_sources() -> str:
    digest = hashlib.sha256()
    for name, file in _sources():
        digest.update(f"{name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _sources() -> Iterator[tuple[str, Path]]:
    import gradstore
    import gradstore_pipelines.stages

    for package in (gradstore, gradstore_pipelines.stages):
        root = Path(str(package.__file__)).parent
        for file in sorted(root.rglob("*.py")):
            yield f"{package.__name__}/{file.relative_to(root).as_posix()}", file
