"""The `.npy` format: header to RowFile. Object arrays are never unpickled.

Source: NumPy Enhancement Proposal 1, and `numpy.lib.format`.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from gradstore.data.remote import RemoteFile
from gradstore.data.row_file import RowFile
from gradstore.data.spool import Packed, Stream
from gradstore.errors import CorruptExampleError, SourceError

_HEADER_BYTES = 1 << 16  # NumPy pads to 64 bytes; a header of fields may be longer, and is refused
_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def npy_rows(file: Path | Packed | RemoteFile, start: int = 0) -> RowFile:
    """The array whose `.npy` header stands at byte `start` of `file`.

    Raises:
        SourceError: not such an array, or one without plain rows (objects, fields, Fortran order, a single value).
        CorruptExampleError: the file ends before the array does.
    """
    with _opened(file) as stream:
        stream.seek(start)
        shape, fortran, dtype = read_header(stream, str(file))
        offset = stream.tell()
    _require_plain_rows(str(file), shape, fortran, dtype)
    return RowFile(file, offset, shape, dtype)


def _opened(file: Path | Packed | RemoteFile) -> Stream:
    """Of a remote file its beginning, which holds the header."""
    if isinstance(file, RemoteFile):
        return io.BytesIO(file.read(0, _HEADER_BYTES))
    return (file.unpacked() if isinstance(file, Packed) else file).open("rb")


def read_header(stream: Stream, name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype; the stream is left at the first value.

    Raises:
        SourceError: the stream is not at a header that NumPy wrote for an array without fields.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # headers written by Python 2 are still good
            return _READERS[npy.read_magic(stream)](stream)
    except Exception as error:  # the header is a Python literal: a damaged one makes numpy raise anything
        raise SourceError(
            f"'{name}' does not start as a .npy array does ({error}). Write it with np.save(path, array)."
        ) from error


def _require_plain_rows(name: str, shape: tuple[int, ...], fortran: bool, dtype: np.dtype[Any]) -> None:
    if dtype.hasobject:
        raise SourceError(
            f"'{name}' holds Python objects, which gradstore never unpickles. "
            "Save plain numbers: np.save(path, np.stack(list(array)).astype('float32'))."
        )
    if dtype.names is not None:
        raise SourceError(
            f"'{name}' has the fields {', '.join(dtype.names)}; expected one plain array. "
            "Save numpy.lib.recfunctions.structured_to_unstructured(array) instead."
        )
    if fortran and len(shape) > 1:
        raise SourceError(
            f"'{name}' is in Fortran order: the values of a row lie scattered over the file. "
            "Save it again with np.save(path, np.ascontiguousarray(array))."
        )
    if min(shape, default=0) < 0:
        raise CorruptExampleError(f"'{name}' claims the shape {list(shape)}: its header is damaged. Write it again.")
    if not shape:
        raise SourceError(f"'{name}' holds a single value; expected one row an example.")
