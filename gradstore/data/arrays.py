"""ArraySource: the rows of one array in a file, and the `.npy` source.

Examples come out as the models want them: images channels first, bytes as uint8, other integers as int64,
everything else as float32. `.npz` archives (npz.py) and IDX pairs (idx.py) are ArraySources too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped

from gradstore.data.labels import Labels, read_labels
from gradstore.data.npy_file import npy_rows
from gradstore.data.row_file import RowFile
from gradstore.data.source import Rows, as_indices
from gradstore.data.stamp import stamp_files
from gradstore.errors import SourceError
from gradstore.store.place import Location, as_url, is_url

_CHANNELS = (1, 3, 4)
_LARGEST = np.iinfo(np.int64).max


def open_npy(path: Path, labels: Path | None = None) -> ArraySource:
    """A `.npy` file of examples, with labels from another file.

    Raises:
        SourceError: an array that is not one row an example, or labels that do not fit it.
        CorruptExampleError: the file ends before the array does.
    """
    rows = npy_rows(path)
    read = None if labels is None else read_labels(labels, len(rows))
    return ArraySource(rows, description=description_of("npy", path, labels), labels=read)


def description_of(form: str, path: Location, labels: Location | None) -> dict[str, Any]:
    """What `ArraySource.describe` gives out: paths are absolute, for a worker may stand in another folder."""
    return {
        "format": form,
        "path": _absolute(path),
        "labels": None if labels is None else _absolute(labels),
    }


def _absolute(location: Location) -> str:
    return as_url(location) if is_url(location) else str(Path(location).absolute())


class ArraySource:
    """Examples that lie one after another in a file; ids are row numbers unless the file has its own.

    [N, D] are vectors, [N, H, W] grey images, [N, H, W, C] with C of 1, 3 or 4 are turned to (C, H, W);
    what could be channels first already, and arrays of more axes, stay as they are.
    """

    def __init__(
        self,
        rows: RowFile,
        *,
        description: Mapping[str, Any],
        labels: Labels | None = None,
        ids: RowFile | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self._rows, self._labels, self._ids = rows, labels, ids
        self._description, self._notes = dict(description), list(notes)
        self._dtype = _given_dtype(rows)
        _require_examples(rows)
        self._channels_last = _is_channels_last(rows.shape[1:])

    @property
    def example_shape(self) -> tuple[int, ...]:
        match self._rows.shape[1:]:
            case (height, width):
                return (1, height, width)
            case (height, width, channels) if self._channels_last:
                return (channels, height, width)
            case shape:
                return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._dtype

    @property
    def label_names(self) -> list[str] | None:
        return None if self._labels is None else list(self._labels.names)

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self, index: Rows) -> Shaped[np.ndarray, "row ..."]:
        rows = _converted(self._rows.read(index), self._dtype, str(self._rows.file))
        arranged = np.moveaxis(rows, -1, 1) if self._channels_last else rows
        return np.ascontiguousarray(arranged).reshape(-1, *self.example_shape)

    def labels(self, index: Rows) -> Int[np.ndarray, " row"] | None:
        return None if self._labels is None else self._labels.read(index)

    def ids(self, index: Rows) -> list[str]:
        if self._ids is None:
            return [str(row) for row in as_indices(index, len(self)).tolist()]
        return [_text(name) for name in self._ids.read(index).tolist()]

    def paths(self, index: Rows) -> list[str] | None:
        return None

    def describe(self) -> dict[str, Any]:
        return dict(self._description)

    def stamp(self) -> str:
        files = [self._description["path"], self._description["labels"]]
        return stamp_files((Path(file).name, file) for file in files if file is not None)

    def notes(self) -> list[str]:
        turned = f"Images of [height, width, channels] are read as {list(self.example_shape)}, channels first."
        return [*self._notes, *([turned] if self._channels_last else [])]


def _given_dtype(rows: RowFile) -> np.dtype[Any]:
    kind = rows.dtype.kind
    if kind == "u" and rows.dtype.itemsize == 1:
        return np.dtype(np.uint8)
    if kind in "iu":
        return np.dtype(np.int64)
    if kind in "fb":
        return np.dtype(np.float32)
    raise SourceError(
        f"'{rows.file}' holds {rows.dtype} values; expected uint8, integers, bool or float16/32/64. "
        "Convert it: np.save(path, array.astype('float32'))."
    )


def _require_examples(rows: RowFile) -> None:
    if len(rows.shape) < 2:
        raise SourceError(
            f"'{rows.file}' has the shape {list(rows.shape)}; expected one row an example, such as [N, features] or "
            "[N, height, width]. Use array[:, None] if each value is an example; labels alone belong to --labels."
        )
    if 0 in rows.shape:
        raise SourceError(
            f"'{rows.file}' has the shape {list(rows.shape)}, which holds no values; expected at least one example. "
            "Check what wrote it."
        )


def _is_channels_last(shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and shape[-1] in _CHANNELS and shape[0] not in _CHANNELS


def _converted(rows: Shaped[np.ndarray, "row ..."], dtype: np.dtype[Any], name: str) -> Shaped[np.ndarray, "row ..."]:
    if rows.dtype.kind == "u" and rows.dtype.itemsize == 8 and rows.size and rows.max() > _LARGEST:
        raise SourceError(
            f"'{name}' holds {rows.max()}; integers are read as int64, up to {_LARGEST}. Scale them down."
        )
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which `scan` reports by id
        return rows.astype(dtype, copy=False)


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
