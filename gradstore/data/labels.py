"""Labels: values as they stand in a file, mapped to class numbers 0, 1, … in the order of the sorted values.

They are the one thing held in memory whole, at four bytes an example.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped
from numpy.typing import NDArray

from gradstore.data.idx_file import idx_rows, is_idx_name
from gradstore.data.npy_file import npy_rows
from gradstore.data.source import Rows, as_indices
from gradstore.errors import SourceError, SourceNotFoundError

_EXACT_FLOAT = 2.0**53
_INTEGER = re.compile(r"-?\d{1,18}")


@dataclass(frozen=True)
class Labels:
    """Class number of every example, and the name of every class."""

    codes: NDArray[np.int32]
    names: list[str]

    def __len__(self) -> int:
        return len(self.codes)

    def read(self, index: Rows) -> Int[np.ndarray, " row"]:
        """[n] int64 class numbers."""
        codes: NDArray[np.int32] = self.codes[as_indices(index, len(self))]
        return codes.astype(np.int64)


def encode_labels(values: Shaped[np.ndarray, "..."], name: str) -> Labels:
    """Class numbers of integers, whole floats or strings.

    >>> encode_labels(np.array([7, 3, 7]), "y").codes.tolist(), encode_labels(np.array([7, 3, 7]), "y").names
    ([1, 0, 1], ['3', '7'])

    Raises:
        SourceError: another shape or dtype, a negative number, a number with a fraction, or NaN.
    """
    if values.ndim != 1:
        raise SourceError(
            f"the labels '{name}' have the shape {list(values.shape)}; expected one label an example, [N]. "
            "One-hot labels become numbers by values.argmax(axis=1)."
        )
    classes, codes = np.unique(_comparable(values, name), return_inverse=True)
    if classes.dtype.kind == "i" and len(classes) and classes[0] < 0:
        raise SourceError(
            f"the labels '{name}' hold {classes[0]}; expected class numbers from 0. Leave unlabelled rows out, "
            "or give them a class of their own."
        )
    return Labels(codes.astype(np.int32), [str(value) for value in classes.tolist()])


def read_labels(path: Path, n_examples: int) -> Labels:
    """Labels from a file: `.npy`, IDX, or text (`.txt`, `.csv`) with one label a line and no header.

    Raises:
        SourceNotFoundError: there is no such file.
        SourceError: it cannot be read as labels, or has not one for each of the `n_examples` examples.
    """
    if not path.exists():
        raise SourceNotFoundError(f"no labels at '{path}'. Give a .npy, .txt, .csv or IDX file to --labels.")
    labels = encode_labels(_values(path), str(path))
    require_length(labels, n_examples, str(path))
    return labels


def require_length(labels: Labels, n_examples: int, name: str) -> None:
    """Refuse labels that are not one an example.

    Raises:
        SourceError: the numbers differ.
    """
    if len(labels) != n_examples:
        hint = " Is its first line a header? Remove it." if len(labels) == n_examples + 1 else ""
        raise SourceError(
            f"'{name}' has {len(labels):,} labels for {n_examples:,} examples; expected one each, in the same "
            f"order.{hint or ' Give the labels that belong to these examples.'}"
        )


def _comparable(values: Shaped[np.ndarray, " example"], name: str) -> NDArray[Any]:
    """Values whose sorted order is the order of the classes."""
    if values.dtype.kind == "f":
        return _whole(values, name)
    if values.dtype.kind == "S":
        return np.strings.decode(values, "utf-8")
    if values.dtype.kind not in "biuU":
        raise SourceError(f"the labels '{name}' are {values.dtype}; expected integers or strings.")
    return values.astype(np.int64) if values.dtype.kind == "b" else values


def _whole(values: Shaped[np.ndarray, " example"], name: str) -> NDArray[np.int64]:
    wrong = ~((np.abs(values) < _EXACT_FLOAT) & (values == np.trunc(values)))
    if wrong.any():
        row = int(wrong.argmax())
        raise SourceError(
            f"the labels '{name}' hold {values[row]} in row {row}; expected class numbers. "
            "gradstore's labels are classes: bin a regression target first, or leave the labels out."
        )
    return values.astype(np.int64)


def _values(path: Path) -> NDArray[Any]:
    if path.suffix == ".npy":
        return npy_rows(path).read(slice(None))
    if path.suffix in (".txt", ".csv"):
        return _numbers_or_strings(_lines(path))
    if path.suffix == ".gz" or is_idx_name(path):
        return idx_rows(path).read(slice(None))
    raise SourceError(f"'{path}' is not a label file that gradstore reads. Expected .npy, .txt, .csv or IDX.")


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig").rstrip()
    except UnicodeDecodeError as error:
        raise SourceError(f"'{path}' is not UTF-8 text ({error}). Save it as UTF-8, one label a line.") from error
    rows = list(csv.reader(text.splitlines())) if path.suffix == ".csv" else [[line] for line in text.splitlines()]
    for number, row in enumerate(rows, start=1):
        if len(row) != 1 or not row[0].strip():
            raise SourceError(f"'{path}' line {number} is {','.join(row)!r}; expected one label a line.")
    return [row[0].strip() for row in rows]


def _numbers_or_strings(lines: Sequence[str]) -> NDArray[Any]:
    """Numbers where every line is one, so that class 10 follows class 9."""
    numeric = all(_INTEGER.fullmatch(line) for line in lines)
    return np.array(lines, dtype=np.int64) if numeric else np.array(lines, dtype=np.str_)
