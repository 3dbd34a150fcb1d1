"""Known contamination: distort some examples of a data set, and remember which.

Detection is judged on rows that are known to be bad. Rows are chosen by the seed alone, and a row that its
distortion would leave as it is (a constant image, rotated) is passed over: a planted row always differs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Int, UInt8
from numpy.typing import NDArray

from gradstore.errors import QueryError, ShapeError

Bytes = NDArray[np.uint8]
Distortion = Callable[[Bytes, np.random.Generator], Bytes]


def plant(
    images: UInt8[np.ndarray, "example ..."],
    kind: str,
    n: int,
    seed: int,
    foreign: UInt8[np.ndarray, "other ..."] | None = None,
) -> tuple[UInt8[np.ndarray, "example ..."], Bool[np.ndarray, " example"]]:
    """A copy of `images` with n distorted examples, and the mask that says which.

    Args:
        images: [N, H, W] or [N, C, H, W]; features [N, d] for every kind but `rotated` and `dead_rows`.
        kind: `inverted`, `rotated` (by 90, 180 or 270 degrees), `noise` (uniform bytes), `permuted` (one pixel
            permutation for all), `dead_rows` (a third of the height set to 0) or `foreign`.
        foreign: what `foreign` plants, each row at most once; rows shaped like those of `images`.

    Raises:
        QueryError: an unknown kind, or fewer than n rows that this kind would change.
        ShapeError: not uint8, or shapes that this kind cannot distort.

    >>> planted, mask = plant(np.zeros((10, 4, 4), np.uint8), "inverted", n=2, seed=0)
    >>> int(mask.sum()), int(planted[mask].min())
    (2, 255)
    """
    _require_bytes(images, n)
    rng = np.random.default_rng(seed)
    distort = _distortion(kind, images, rng, foreign)
    planted, mask = images.copy(), np.zeros(len(images), dtype=bool)
    for row in rng.permutation(len(images)):
        if mask.sum() == n:
            break
        candidate = distort(images[row], rng)
        if not np.array_equal(candidate, images[row]):
            planted[row], mask[row] = candidate, True
    if mask.sum() < n:
        raise QueryError(f"{kind!r} changes only {mask.sum()} of {len(images)} examples; {n} were to be planted.")
    return planted, mask


def flip_labels(
    labels: Int[np.ndarray, " example"], n: int, n_classes: int, seed: int
) -> tuple[Int[np.ndarray, " example"], Bool[np.ndarray, " example"]]:
    """A copy of `labels` with n moved to another class, uniformly, and the mask that says which.

    Raises:
        QueryError: fewer than two classes, or n larger than the number of labels.
    """
    if n_classes < 2 or n > len(labels):
        raise QueryError(f"Cannot flip {n} of {len(labels)} labels among {n_classes} classes: two classes are needed.")
    rng = np.random.default_rng(seed)
    mask = np.zeros(len(labels), dtype=bool)
    mask[rng.choice(len(labels), n, replace=False)] = True
    flipped = labels.copy()
    flipped[mask] = (labels[mask] + rng.integers(1, n_classes, n)) % n_classes
    return flipped, mask


def _require_bytes(images: NDArray[np.uint8], n: int) -> None:
    if images.dtype != np.uint8 or images.ndim < 2:
        raise ShapeError(f"plant needs uint8 examples [N, ...]; found {images.dtype} {images.shape}.")
    if not 0 <= n <= len(images):
        raise QueryError(f"Cannot plant {n} examples among {len(images)}; n must be between 0 and {len(images)}.")


def _distortion(kind: str, images: Bytes, rng: np.random.Generator, foreign: Bytes | None) -> Distortion:
    """What turns one example into a planted one; draws what all planted rows share."""
    if kind in ("rotated", "dead_rows") and images.ndim < 3:
        raise ShapeError(f"{kind!r} needs images [N, H, W] or [N, C, H, W]; found {images.shape}.")
    if kind == "permuted":
        return _permutation_of(images, rng)
    if kind == "foreign":
        return _rows_of(images, foreign, rng)
    if kind not in _BY_EXAMPLE:
        raise QueryError(f"{kind!r} is no kind of contamination. Use one of: {', '.join(KINDS)}.")
    return _BY_EXAMPLE[kind]


def _inverted(image: Bytes, rng: np.random.Generator) -> Bytes:
    return 255 - image


def _noise(image: Bytes, rng: np.random.Generator) -> Bytes:
    return rng.integers(0, 256, image.shape, dtype=np.uint8)


def _rotated(image: Bytes, rng: np.random.Generator) -> Bytes:
    """One of the turns that change the image; a picture that is not square can only be turned by 180 degrees."""
    turns = [np.rot90(image, quarter, axes=(-2, -1)) for quarter in rng.permutation([1, 2, 3])]
    fitting = [turned for turned in turns if turned.shape == image.shape]
    return next((turned for turned in fitting if not np.array_equal(turned, image)), image)


def _dead_rows(image: Bytes, rng: np.random.Generator) -> Bytes:
    height = image.shape[-2]
    block = max(height // 3, 1)
    start = rng.integers(0, height - block + 1)
    damaged = image.copy()
    damaged[..., start : start + block, :] = 0
    return damaged


def _permutation_of(images: Bytes, rng: np.random.Generator) -> Distortion:
    """Channels stay together: a pixel is what moves."""
    n_axes = min(images.ndim - 1, 2)
    order = rng.permutation(int(np.prod(images.shape[-n_axes:])))

    def permuted(image: Bytes, rng: np.random.Generator) -> Bytes:
        pixels = image.reshape(*image.shape[: image.ndim - n_axes], -1)
        return pixels[..., order].reshape(image.shape)

    return permuted


def _rows_of(images: Bytes, foreign: Bytes | None, rng: np.random.Generator) -> Distortion:
    if foreign is None or foreign.shape[1:] != images.shape[1:] or foreign.dtype != np.uint8:
        found = "none" if foreign is None else f"{foreign.dtype} {foreign.shape}"
        raise ShapeError(f"'foreign' plants uint8 rows shaped {images.shape[1:]}; found {found}.")
    rows = iter(rng.permutation(len(foreign)))

    def taken(image: Bytes, rng: np.random.Generator) -> Bytes:
        row = next(rows, None)
        return image if row is None else foreign[row]

    return taken


_BY_EXAMPLE: dict[str, Distortion] = {
    "inverted": _inverted,
    "rotated": _rotated,
    "noise": _noise,
    "dead_rows": _dead_rows,
}
KINDS = (*_BY_EXAMPLE, "permuted", "foreign")
"""Every kind that `plant` knows."""
