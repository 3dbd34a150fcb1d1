"""`.npz` archives: which member holds the examples, which the labels and the ids, and where their bytes are.

`np.savez` stores members as they are, and those are read in place; members of `np.savez_compressed` are unpacked
once a process (spool.py).
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gradstore.data.arrays import ArraySource, description_of
from gradstore.data.identity import refuse_duplicate_ids
from gradstore.data.labels import Labels, encode_labels, read_labels, require_length
from gradstore.data.npy_file import npy_rows, read_header
from gradstore.data.row_file import RowFile
from gradstore.data.spool import Packed
from gradstore.errors import CorruptExampleError, SourceError

_COPY_BYTES = 1 << 20
_EXAMPLES = ("x", "X", "images", "data", "inputs", "arr_0")
_LABELS = ("y", "Y", "labels", "targets")
_IDS = "ids"
_NAMED = 5
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field


def open_npz(path: Path, labels: Path | None = None, *, verify: bool = True) -> ArraySource:
    """A `.npz` archive; a file of `labels` goes before a member of that name.

    Args:
        path: the archive.
        labels: a file of labels.
        verify: whether to check the archive's checksums and that no two ids are equal: one pass over the bytes.

    Raises:
        SourceError: no member is clearly the examples, or labels or ids do not fit them.
        CorruptExampleError: the archive or a member is damaged.
    """
    archive = _opened(path, verify)
    member = _examples_member(archive)
    rows = archive.rows(member)
    ids = _ids(archive, len(rows))
    source = ArraySource(
        rows,
        description=description_of("npz", path, labels),
        labels=_labels(archive, labels, len(rows)),
        ids=ids,
        notes=_unused(archive, member, labels),
    )
    if verify and ids is not None:
        refuse_duplicate_ids(source)
    return source


@dataclass(frozen=True)
class _Archive:
    """An archive's members by name, without `.npy`."""

    path: Path
    members: Mapping[str, zipfile.ZipInfo]
    verify: bool

    def first_of(self, names: Iterable[str]) -> str | None:
        return next((name for name in names if name in self.members), None)

    def rows(self, name: str) -> RowFile:
        packed = self._packed(name)
        if self.members[name].compress_type != zipfile.ZIP_STORED:
            return npy_rows(packed)  # unpacking checks the checksum
        if self.verify:
            _read_through(packed)
        return npy_rows(self.path, _data_offset(self.path, self.members[name]))

    def shape(self, name: str) -> tuple[int, ...]:
        packed = self._packed(name)
        with packed.open() as stream:
            return read_header(stream, str(packed))[0]

    def _packed(self, name: str) -> Packed:
        return Packed(self.path, self.members[name].filename)


def _opened(path: Path, verify: bool) -> _Archive:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise CorruptExampleError(
            f"'{path}' is not a whole .npz archive ({error}). Write it again with np.savez(path, x=array)."
        ) from error
    return _Archive(path, members, verify)


def _examples_member(archive: _Archive) -> str:
    named = archive.first_of(_EXAMPLES)
    if named is not None:
        return named
    shapes = {name: archive.shape(name) for name in archive.members}
    tables = [name for name, shape in shapes.items() if len(shape) >= 2]
    if len(tables) == 1:
        return tables[0]
    found = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "nothing"
    raise SourceError(
        f"'{archive.path}' holds {found}; expected the examples in a member called {', '.join(_EXAMPLES)}, or a single "
        "array of two or more axes. Save the one to use: np.savez(path, x=images, y=labels)."
    )


def _unused(archive: _Archive, examples: str, labels: Path | None) -> list[str]:
    """A sentence about members that nothing reads: a misnamed `lables` shows here."""
    read = {examples, _IDS, archive.first_of(_LABELS) if labels is None else None}
    unused = [name for name in archive.members if name not in read]
    if not unused:
        return []
    more = f" and {len(unused) - _NAMED} more" if len(unused) > _NAMED else ""
    return [
        f"Not used of '{archive.path.name}': {', '.join(unused[:_NAMED])}{more}. The examples are {examples}; labels "
        f"would be one of {', '.join(_LABELS)}, and ids {_IDS}."
    ]


def _labels(archive: _Archive, file: Path | None, n_examples: int) -> Labels | None:
    if file is not None:
        return read_labels(file, n_examples)
    member = archive.first_of(_LABELS)
    if member is None:
        return None
    labels = encode_labels(archive.rows(member).read(slice(None)), f"{archive.path}: {member}")
    require_length(labels, n_examples, f"{archive.path}: {member}")
    return labels


def _ids(archive: _Archive, n_examples: int) -> RowFile | None:
    if _IDS not in archive.members:
        return None
    ids = archive.rows(_IDS)
    if ids.dtype.kind not in "US" or ids.shape != (n_examples,):
        raise SourceError(
            f"'{archive.path}: {_IDS}' is {ids.dtype} {list(ids.shape)}; expected one string an example, "
            f"[{n_examples}]. Save ids.astype(str), or leave the ids out to number the rows."
        )
    return ids


def _read_through(packed: Packed) -> None:
    """Compare the checksum: zipfile does when a member has been read to its end."""
    with packed.open() as stream:
        while stream.read(_COPY_BYTES):
            pass


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Where a stored member's bytes begin: the local header may be longer than the directory says."""
    with path.open("rb") as file:
        file.seek(max(info.header_offset, 0))
        header = file.read(_LOCAL_HEADER.size)
    if info.header_offset < 0 or len(header) < _LOCAL_HEADER.size or header[:4] != b"PK\x03\x04":
        raise CorruptExampleError(f"'{path}' has no member where '{info.filename}' should be. Write it again.")
    _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    return int(info.header_offset + _LOCAL_HEADER.size + name_length + extra_length)
