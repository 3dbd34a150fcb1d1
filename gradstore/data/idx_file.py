"""The IDX format of MNIST: header to RowFile, gzipped or plain.

Two zero bytes, a type code, the number of axes, their lengths as big-endian 32-bit numbers, then the values.
Source: http://yann.lecun.com/exdb/mnist/, "THE IDX FILE FORMAT".
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np

from gradstore.data.row_file import RowFile
from gradstore.data.spool import Packed, is_gzip
from gradstore.errors import CorruptExampleError, SourceError

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_NAME = re.compile(r"(idx\d?-?ubyte|\.idx\d?|-ubyte)(\.gz)?$", re.IGNORECASE)


def is_idx_name(path: Path) -> bool:
    """Whether a file is called as IDX files are.

    >>> is_idx_name(Path("train-images-idx3-ubyte.gz")), is_idx_name(Path("train.idx3")), is_idx_name(Path("a.gz"))
    (True, True, False)
    """
    return _NAME.search(path.name) is not None


def idx_rows(path: Path) -> RowFile:
    """The array in an IDX file.

    Raises:
        SourceError: the file is no IDX file.
        CorruptExampleError: it is damaged or ends before the array does.
    """
    file = Packed(path) if is_gzip(path) else path
    plain = file.unpacked() if isinstance(file, Packed) else file
    with plain.open("rb") as stream:
        magic = stream.read(4)
        dtype, n_axes = _parse(magic, path)
        axes = stream.read(4 * n_axes)
    if len(axes) < 4 * n_axes:
        raise CorruptExampleError(f"'{path}' ends within its header of {n_axes} axes. Fetch or write it again.")
    return RowFile(file, 4 + 4 * n_axes, struct.unpack(f">{n_axes}I", axes), dtype)


def _parse(magic: bytes, path: Path) -> tuple[np.dtype[np.generic], int]:
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _DTYPES or magic[3] == 0:
        raise SourceError(
            f"'{path}' starts with {magic!r}, not as an IDX file does (0, 0, type, number of axes). "
            "Give the images of an IDX pair, such as train-images-idx3-ubyte.gz."
        )
    return np.dtype(_DTYPES[magic[2]]), magic[3]
