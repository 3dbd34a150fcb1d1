"""`.npz` archives: which member holds the examples, which the labels and the ids, and where their bytes are.

`np.savez` stores members as they are, and those are read in place; members of `np.savez_compressed` are unpacked
once a process (spool.py).
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

from gradstore.data.arrays import ArraySource, description_of
from gradstore.data.identity import refuse_duplicate_ids
from gradstore.data.labels import Labels, encode_labels, read_labels, require_length
from gradstore.data.npy_file import npy_rows, read_header
from gradstore.data.row_file import RowFile
from gradstore.data.spool import Packed
from gradstore.errors import CorruptExampleError, SourceError

_EXAMPLES = ("x", "X", "images", "data", "inputs", "arr_0")
_LABELS = ("y", "Y", "labels", "targets")
_IDS = "ids"
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field


def open_npz(path: Path, labels: Path | None = None, *, check_ids: bool = True) -> ArraySource:
    """A `.npz` archive; a file of `labels` goes before a member of that name.

    Raises:
        SourceError: no member is clearly the examples, or labels or ids do not fit them.
        CorruptExampleError: the archive or a member is damaged.
    """
    members = _members(path)
    rows = _rows(path, members, _examples_member(path, members))
    source = ArraySource(
        rows,
        description=description_of("npz", path, labels),
        labels=_labels(path, members, labels, len(rows)),
        ids=_ids(path, members, len(rows)),
    )
    if check_ids and _IDS in members:
        refuse_duplicate_ids(source)
    return source


def _members(path: Path) -> dict[str, zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    except zipfile.BadZipFile as error:
        raise CorruptExampleError(
            f"'{path}' is not a whole .npz archive ({error}). Write it again with np.savez(path, x=array)."
        ) from error


def _examples_member(path: Path, members: dict[str, zipfile.ZipInfo]) -> str:
    named = _first_of(_EXAMPLES, members)
    if named is not None:
        return named
    shapes = {name: _shape(path, info) for name, info in members.items()}
    tables = [name for name, shape in shapes.items() if len(shape) >= 2]
    if len(tables) == 1:
        return tables[0]
    found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "nothing"
    raise SourceError(
        f"'{path}' holds {found}; expected the examples in a member called {', '.join(_EXAMPLES)}, or a single array "
        "of two or more axes. Save the one to use: np.savez(path, x=images, y=labels)."
    )


def _labels(path: Path, members: dict[str, zipfile.ZipInfo], file: Path | None, n_examples: int) -> Labels | None:
    if file is not None:
        return read_labels(file, n_examples)
    member = _first_of(_LABELS, members)
    if member is None:
        return None
    labels = encode_labels(_rows(path, members, member).read(slice(None)), f"{path}: {member}")
    require_length(labels, n_examples, f"{path}: {member}")
    return labels


def _ids(path: Path, members: dict[str, zipfile.ZipInfo], n_examples: int) -> RowFile | None:
    if _IDS not in members:
        return None
    ids = _rows(path, members, _IDS)
    if ids.dtype.kind not in "US" or ids.shape != (n_examples,):
        raise SourceError(
            f"'{path}: {_IDS}' is {ids.dtype} {list(ids.shape)}; expected one string an example, [{n_examples}]. "
            "Save ids.astype(str), or leave the ids out to number the rows."
        )
    return ids


def _rows(path: Path, members: dict[str, zipfile.ZipInfo], name: str) -> RowFile:
    info = members[name]
    if info.compress_type == zipfile.ZIP_STORED:
        return npy_rows(path, _data_offset(path, info))
    return npy_rows(Packed(path, info.filename))


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin: the local header may be longer than the directory says."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
        raise CorruptExampleError(f"'{path}' has no member where '{info.filename}' should be. Write it again.")
    _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    return int(info.header_offset + _LOCAL_HEADER.size + name_length + extra_length)


def _shape(path: Path, info: zipfile.ZipInfo) -> tuple[int, ...]:
    with Packed(path, info.filename).open() as stream:
        return read_header(stream, f"{path}: {info.filename}")[0]


def _first_of(names: Iterable[str], members: dict[str, zipfile.ZipInfo]) -> str | None:
    return next((name for name in names if name in members), None)
