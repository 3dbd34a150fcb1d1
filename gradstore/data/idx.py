"""IDX pairs, as MNIST and Fashion-MNIST come: images in one file, labels in the one named alike beside it."""

from __future__ import annotations

import re
from pathlib import Path

from gradstore.data.arrays import ArraySource, description_of
from gradstore.data.idx_file import idx_rows
from gradstore.data.labels import read_labels


def open_idx(path: Path, labels: Path | None = None, *, find_labels: bool = True) -> ArraySource:
    """An IDX file of examples, plain or gzipped.

    Labels come from the file given, else from the one that the name leads to, where it is there:
    `train-images-idx3-ubyte.gz` -> `train-labels-idx1-ubyte.gz`.

    Raises:
        SourceError: a file that is no IDX file, or labels that do not fit the images.
        CorruptExampleError: a damaged file.
    """
    rows = idx_rows(path)
    found = _labels_beside(path) if labels is None and find_labels else None
    file = labels or found
    return ArraySource(
        rows,
        description=description_of("idx", path, file),
        labels=None if file is None else read_labels(file, len(rows)),
        notes=[f"Labels are read from '{found.name}' beside it."] if found else [],
    )


def _labels_beside(path: Path) -> Path | None:
    stem = path.name.removesuffix(".gz")
    name = re.sub(r"idx\d", "idx1", stem.replace("images", "labels"))
    candidates = [path.with_name(name), path.with_name(name + ".gz")]
    return next((file for file in candidates if name != stem and file.exists()), None)
