"""Which images a folder holds: their relative POSIX paths, sorted, which are the ids of the examples."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from gradstore.data.idx_file import is_idx_name
from gradstore.data.image_file import EXTENSIONS
from gradstore.errors import SourceError


def list_images(root: Path) -> list[str]:
    """Images in `root` and its sub-folders. Hidden files and folders, whose names start with a dot, do not count.

    Raises:
        SourceError: there are none, a folder cannot be read, or a name is not UTF-8.
    """
    names = sorted(_images(root))
    if not names:
        raise SourceError(f"no images in '{root}' or its sub-folders. {_advice(root)}")
    return names


def _images(root: Path) -> Iterator[str]:
    for parent, folders, files in os.walk(root, onerror=_refuse_unreadable, followlinks=True):
        folder = Path(parent)
        folders[:] = [name for name in folders if not name.startswith(".") and not _is_loop(folder / name)]
        for name in files:
            if name.lower().endswith(EXTENSIONS) and not name.startswith("."):
                yield _as_id(folder.joinpath(name).relative_to(root).as_posix())


def _is_loop(folder: Path) -> bool:
    """A link to a folder that contains it would never end."""
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _as_id(name: str) -> str:
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise SourceError(f"the file name {name!r} is not UTF-8, and names are ids. Rename the file.") from error
    return name


def _refuse_unreadable(error: OSError) -> None:
    raise SourceError(f"'{error.filename}' cannot be read: {error.strerror}. Make it readable, or move it away.")


def _advice(root: Path) -> str:
    arrays = sorted(f.name for f in root.iterdir() if f.suffix in (".npy", ".npz") or is_idx_name(f))
    if arrays:
        best = next((name for name in arrays if "images" in name), arrays[0])
        return f"It holds {len(arrays)} array files: give one of them, such as '{root / best}'."
    return f"Expected files ending in {', '.join(EXTENSIONS)}."
