"""ImageFolder: every image in a folder is an example, the first sub-folder on its way is its label.

Memory is one name an image. The images are decoded once when the folder is first opened (image_survey.py);
what was found goes into the description, so that workers reopen the folder without decoding anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from gradstore.data.image_file import decode, pixels
from gradstore.data.image_listing import list_images
from gradstore.data.image_survey import OnCorrupt, chosen_shape, require_readable, survey_images, survey_notes
from gradstore.data.source import Rows, as_indices
from gradstore.data.stamp import stamp_files
from gradstore.errors import CorruptExampleError, SourceError


def open_image_folder(
    root: Path,
    *,
    image_size: int | None = None,
    on_corrupt: OnCorrupt = "refuse",
    progress: Callable[[int], None] | None = None,
) -> ImageFolder:
    """A folder of images, each decoded once to see that it can be.

    Raises:
        SourceError: no images, none that can be decoded, or an impossible `image_size`.
        CorruptExampleError: images that cannot be decoded, unless `on_corrupt` is `skip`.
    """
    if image_size is not None and image_size < 1:
        raise SourceError(f"--image-size is {image_size}; expected a number of pixels of 1 or more, such as 64.")
    names = list_images(root)
    survey = survey_images(root, names, progress)
    require_readable(root, survey, on_corrupt)
    shape = chosen_shape(survey, image_size)
    readable = [name for name in names if name not in survey.broken]
    notes = [*survey_notes(survey, shape, image_size), *_label_notes(readable)]
    return ImageFolder(root.absolute(), readable, shape=shape, skipped=survey.broken, notes=notes)


def reopen_image_folder(description: Mapping[str, Any]) -> ImageFolder:
    """The folder that `ImageFolder.describe` described.

    Raises:
        SourceError: images have been added or removed since.
    """
    root, skipped = Path(description["path"]), description["skipped"]
    names = [name for name in list_images(root) if name not in skipped]
    if _digest(names) != description["names"]:
        raise SourceError(
            f"'{root}' now holds {len(names):,} images where {description['n_images']:,} were, or others. "
            "Put it back as it was, or start again with another store."
        )
    c, h, w = description["shape"]
    return ImageFolder(root, names, shape=(c, h, w), skipped=skipped, notes=description["notes"])


class ImageFolder:
    """Images by name, all given out at one `shape` (C, H, W)."""

    dtype: np.dtype[Any] = np.dtype(np.uint8)

    def __init__(
        self,
        root: Path,
        names: list[str],
        *,
        shape: tuple[int, int, int],
        skipped: Mapping[str, str],
        notes: Sequence[str],
    ) -> None:
        self._root, self._names, self._shape = root, names, shape
        self._skipped, self._notes = dict(skipped), list(notes)
        self._classes = {name: number for number, name in enumerate(_class_names(names))}

    @property
    def example_shape(self) -> tuple[int, ...]:
        return self._shape

    @property
    def label_names(self) -> list[str] | None:
        return list(self._classes) or None

    def __len__(self) -> int:
        return len(self._names)

    def rows(self, index: Rows) -> UInt8[np.ndarray, "row channel height width"]:
        names = self.ids(index)
        rows = np.empty((len(names), *self._shape), dtype=np.uint8)
        for row, name in zip(rows, names, strict=True):
            row[...] = self._pixels(name)
        return rows

    def labels(self, index: Rows) -> Int[np.ndarray, " row"] | None:
        if not self._classes:
            return None
        return np.array([self._classes[_folder(name)] for name in self.ids(index)], dtype=np.int64)

    def ids(self, index: Rows) -> list[str]:
        return [self._names[row] for row in as_indices(index, len(self)).tolist()]

    def paths(self, index: Rows) -> list[str] | None:
        return [str(self._root / name) for name in self.ids(index)]

    def describe(self) -> dict[str, Any]:
        return {
            "format": "images",
            "path": str(self._root),
            "shape": list(self._shape),
            "n_images": len(self),
            "names": _digest(self._names),
            "skipped": dict(self._skipped),
            "notes": list(self._notes),
        }

    def stamp(self) -> str:
        return stamp_files((name, self._root / name) for name in list_images(self._root))

    def notes(self) -> list[str]:
        return list(self._notes)

    def _pixels(self, name: str) -> UInt8[np.ndarray, "channel height width"]:
        try:
            return pixels(decode(self._root / name), self._shape)
        except CorruptExampleError as error:
            raise CorruptExampleError(
                f"'{self._root / name}' can no longer be decoded ({error}). It was changed after the folder was "
                "opened: put it back and run the same command again."
            ) from error


def _folder(name: str) -> str:
    return name.partition("/")[0]


def _class_names(names: Sequence[str]) -> list[str]:
    """First sub-folders, sorted; none as soon as one image lies outside them."""
    return sorted({_folder(name) for name in names}) if all("/" in name for name in names) else []


def _label_notes(names: Sequence[str]) -> list[str]:
    classes, outside = _class_names(names), sum("/" not in name for name in names)
    if len(classes) == 1:
        return [f"Every image has the label '{classes[0]}', the only sub-folder. Give that folder to look within it."]
    if classes or outside == len(names):
        return []
    return [
        f"There are no labels: {outside:,} images lie beside the sub-folders. "
        "Move them into a sub-folder to have sub-folders as labels."
    ]


def _digest(names: Sequence[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in names:
        digest.update(f"{name}\0".encode())
    return digest.hexdigest()
