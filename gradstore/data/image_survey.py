"""The first look at a folder of images: every image is decoded once, so that no later step meets a broken one.

What it finds decides how the folder is read: at which size, with how many channels, without which images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gradstore.data.image_file import decode, is_grey
from gradstore.errors import CorruptExampleError, SourceError

OnCorrupt = Literal["refuse", "skip"]
_NATIVE_SIDE = 64
_NAMED = 10


@dataclass(frozen=True)
class Survey:
    """What the images of a folder are: `sizes` are (height, width), `broken` maps a name to the reason."""

    n_images: int
    sizes: frozenset[tuple[int, int]]
    all_grey: bool
    broken: Mapping[str, str]


def survey_images(root: Path, names: Sequence[str], progress: Callable[[int], None] | None = None) -> Survey:
    """Decode every image once; `progress` is called with the number of images since its last call."""
    sizes: set[tuple[int, int]] = set()
    broken: dict[str, str] = {}
    all_grey = True
    for name in names:
        try:
            image = decode(root / name)
            sizes.add((image.height, image.width))
            all_grey = all_grey and is_grey(image)
        except CorruptExampleError as error:
            broken[name] = str(error)
        if progress is not None:
            progress(1)
    return Survey(len(names) - len(broken), frozenset(sizes), all_grey, broken)


def require_readable(root: Path, survey: Survey, on_corrupt: OnCorrupt) -> None:
    """Refuse broken images, or only a folder that has no other.

    Raises:
        CorruptExampleError: images cannot be decoded and `on_corrupt` is not `skip`.
        SourceError: none can be decoded.
    """
    if survey.broken and on_corrupt != "skip":
        raise CorruptExampleError(
            f"{len(survey.broken):,} of {survey.n_images + len(survey.broken):,} images in '{root}' cannot be decoded: "
            f"{_listed(survey.broken)}. Repair or remove them, or leave them out with --on-corrupt skip."
        )
    if survey.n_images == 0:
        raise SourceError(
            f"none of the {len(survey.broken):,} images in '{root}' can be decoded: {_listed(survey.broken)}. "
            "Expected images that a viewer opens: check what wrote them."
        )


def chosen_shape(survey: Survey, image_size: int | None) -> tuple[int, int, int]:
    """(C, H, W): the images' own size where it is one and small, else a square of `image_size` or 64."""
    channels = 1 if survey.all_grey else 3
    height, width = next(iter(survey.sizes))
    if image_size is None and len(survey.sizes) == 1 and max(height, width) <= _NATIVE_SIDE:
        return channels, height, width
    side = image_size or _NATIVE_SIDE
    return channels, side, side


def survey_notes(survey: Survey, shape: tuple[int, int, int], image_size: int | None) -> list[str]:
    """Sentences about images that were resized or left out."""
    return [*_resizing(survey, shape, image_size), *_skipping(survey)]


def _resizing(survey: Survey, shape: tuple[int, int, int], image_size: int | None) -> list[str]:
    if survey.sizes == {shape[1:]}:
        return []
    height, width = next(iter(survey.sizes))
    sizes = f"of {len(survey.sizes):,} sizes" if len(survey.sizes) > 1 else f"of {width}x{height} pixels"
    choice = "; choose with --image-size" if image_size is None else ""
    return [f"{survey.n_images:,} images {sizes} are resized to {shape[2]}x{shape[1]}{choice}."]


def _skipping(survey: Survey) -> list[str]:
    if not survey.broken:
        return []
    return [f"Images left out because they cannot be decoded, {len(survey.broken):,} in all: {_listed(survey.broken)}."]


def _listed(broken: Mapping[str, str]) -> str:
    named = [f"{name} ({reason})" for name, reason in list(broken.items())[:_NAMED]]
    return "; ".join([*named, *(["…"] if len(broken) > _NAMED else [])])
