"""Queries from a file, prepared as the store's own examples were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, Shaped

from gradstore.data import ExampleSource, open_source
from gradstore.data.arrays import ArraySource, description_of
from gradstore.data.batch import as_inputs
from gradstore.data.image_file import EXTENSIONS, decode, pixels
from gradstore.data.image_listing import list_images
from gradstore.data.labels import read_labels
from gradstore.data.npy_file import npy_rows
from gradstore.data.row_file import RowFile
from gradstore.errors import CorruptExampleError, QueryError, SourceNotFoundError
from gradstore.store import Store
from gradstore.task import Batch, example_keys

_AT_MOST = 10_000


@dataclass(frozen=True)
class _Rows:
    values: Shaped[np.ndarray, "query ..."]
    ids: list[str]
    label_names: list[str | None]
    """Name of each query's class, None where it has none."""


def open_queries(
    store: Store, path: Path, labels: Path | None = None, *, labelled: bool = True
) -> tuple[Batch, list[str]]:
    """All examples of a file or folder as one batch, and their ids.

    A single image, or a folder of them, is resized to the store's shape; array files must have it already. A `.npy`
    file of that very shape is one query.

    Args:
        labels: labels of an array file, in a file of their own.
        labelled: whether labels are wanted; else those of the file or folder are left out, whatever they are.

    Raises:
        SourceError: the file cannot be read.
        QueryError: shape, type or classes that the store does not have, or more than 10,000 queries.
    """
    if not path.exists():
        raise SourceNotFoundError(f"No query at '{path}'. Give a file or folder in a format that `build` reads.")
    shape = tuple(store.manifest.settings["request"]["data"]["example_shape"])
    is_image = path.is_dir() or path.name.lower().endswith(EXTENSIONS)
    if is_image and labels is not None:
        raise QueryError(f"--labels goes with array files; the class of an image is its sub-folder in '{path}'.")
    found = _images(path, shape) if is_image else _arrays(_opened(path, labels, shape), path)
    _require_like(store, path, found.values)
    ids = found.ids
    classes = _classes(store, path, found.label_names) if labelled else None
    return Batch(as_inputs(found.values), classes, example_keys(ids)), ids


def _opened(path: Path, labels: Path | None, shape: tuple[int, ...]) -> ExampleSource:
    """The file's examples; a `.npy` file may hold a single one as it is."""
    if path.suffix == ".npy":
        rows = npy_rows(path)
        if _is_one(rows.shape, shape):
            one = RowFile(rows.file, rows.offset, (1, *rows.shape), rows.dtype)
            read = None if labels is None else read_labels(labels, 1)
            return ArraySource(one, description=description_of("npy", path, labels), labels=read)
    return open_source(path, labels=labels)


def _is_one(found: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether an array is one example: of its shape, as an image of one channel or with the channels last.

    >>> _is_one((3, 32, 32), (3, 32, 32)), _is_one((28, 28), (1, 28, 28)), _is_one((3, 28, 28), (1, 28, 28))
    (True, True, False)
    """
    forms = {shape, (*shape[1:], *shape[:1])} if len(shape) == 3 else {shape}
    forms |= {form[1:] for form in forms if form[0] == 1}
    return found in forms and found[1:] not in forms


def _arrays(source: ExampleSource, path: Path) -> _Rows:
    if len(source) > _AT_MOST:
        raise _too_many(path, len(source))
    everything, names = slice(0, len(source)), source.label_names
    classes = source.labels(everything)
    named: list[str | None] = [None] * len(source) if classes is None or names is None else [names[c] for c in classes]
    return _Rows(source.rows(everything), source.ids(everything), named)


def _images(path: Path, shape: tuple[int, ...]) -> _Rows:
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise QueryError(f"'{path}' is an image and the store's examples have shape {shape}. Give an array file.")
    names = list_images(path) if path.is_dir() else [path.name]
    if len(names) > _AT_MOST:
        raise _too_many(path, len(names))
    root = path if path.is_dir() else path.parent
    rows = [_pixels(root / name, (shape[0], shape[1], shape[2])) for name in names]
    labels = [name.split("/")[0] if "/" in name else None for name in names]
    return _Rows(np.stack(rows), names, labels)


def _pixels(file: Path, shape: tuple[int, int, int]) -> Shaped[np.ndarray, "channel height width"]:
    try:
        return pixels(decode(file), shape)
    except CorruptExampleError as error:
        raise CorruptExampleError(f"'{file}' cannot be decoded ({error}). Give another image.") from error


def _require_like(store: Store, path: Path, values: Shaped[np.ndarray, "query ..."]) -> None:
    data: dict[str, Any] = store.manifest.settings["request"]["data"]
    expected, found = tuple(data["example_shape"]), tuple(values.shape[1:])
    if (found, values.dtype.name) != (expected, data["dtype"]):
        raise QueryError(
            f"'{path}' holds {values.dtype.name} examples of shape {found}; those of '{store.location}' are "
            f"{data['dtype']} of shape {expected}. Give queries prepared as the data were."
        )
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise QueryError(f"'{path}' holds NaN or infinity. Clean the queries first.")


def _classes(store: Store, path: Path, names: Sequence[str | None]) -> Int[torch.Tensor, " query"] | None:
    """Class numbers as the store counts them; None unless store and queries have labels."""
    known = store.manifest.label_names
    if known is None or any(name is None for name in names):
        return None
    unknown = sorted({str(name) for name in names} - set(known))
    if unknown:
        raise QueryError(f"'{path}' has the label {unknown[0]!r}; the store's are {', '.join(known[:10])}.")
    return torch.tensor([known.index(str(name)) for name in names])


def _too_many(path: Path, count: int) -> QueryError:
    return QueryError(f"'{path}' holds {count:,} examples; at most {_AT_MOST:,} are answered at once. Split it.")
