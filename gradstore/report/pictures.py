"""An example as something to look at: a PNG for images, lines for series."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from jaxtyping import Float64, Shaped, UInt8
from numpy.typing import NDArray
from PIL import Image

_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
_LARGEST_SIDE = 256
_TINY_SIDE = 64
_MOST_LINES = 8
_MOST_POINTS = 512
_FEWEST_STEPS = 16
_LONG = 3


def is_image(example: Shaped[np.ndarray, "..."]) -> bool:
    """Whether the array is (1, H, W), (3, H, W) or (4, H, W) and no series."""
    return example.ndim == 3 and example.shape[0] in _CHANNELS and not is_series(example)


def is_series(example: Shaped[np.ndarray, "..."]) -> bool:
    """Whether the array is a series [T], [T, C] or [C, T] of floats.

    Array files give each [T, C] as (1, T, C), as they give a grey image. No picture is three times as long as it is
    wide; a series of few channels is. A vector of fewer than 16 floats is a row of a table.
    """
    if example.dtype.kind != "f":
        return False
    match example.shape:
        case (steps,):
            return bool(steps >= _FEWEST_STEPS)
        case (1, height, width):
            return bool(max(height, width) >= _LONG * min(height, width))
    return example.ndim == 2


def is_tiny(image: Shaped[np.ndarray, "channel height width"]) -> bool:
    """Whether it has so few pixels that each is better seen as a square than smoothed away."""
    return bool(max(image.shape[1:]) <= _TINY_SIDE)


def png(image: Shaped[np.ndarray, "channel height width"], largest_side: int = _LARGEST_SIDE) -> bytes:
    """An image as PNG; longer sides are reduced, so that a page of many stays light.

    Args:
        image: uint8, or float in 0..1. Floats outside 0..1 are stretched so that their range fills 0..1; what is
            not finite is drawn black.
        largest_side: in pixels.
    """
    picture = pil_image(image)
    if max(picture.size) > largest_side:
        picture.thumbnail((largest_side, largest_side), Image.Resampling.LANCZOS)
    stream = BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def pil_image(image: Shaped[np.ndarray, "channel height width"]) -> Image.Image:
    """An image as PIL has it."""
    pixels = np.moveaxis(_to_bytes(image), 0, -1)
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


def reduced(image: Shaped[np.ndarray, "channel height width"], side: int) -> Shaped[np.ndarray, "channel h w"]:
    """The image itself, or, where a side is longer than `side`, a smaller one in bytes."""
    if max(image.shape[1:]) <= side:
        return image
    picture = pil_image(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


def data_uri(image: Shaped[np.ndarray, "channel height width"]) -> str:
    """The PNG as a `data:` address, so that a page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(png(image)).decode("ascii")


def lines(example: Shaped[np.ndarray, "..."], width: float, height: float) -> list[str]:
    """An example that is no image as SVG polyline points, one string a line; see `points`."""
    return [" ".join(f"{x:.1f},{y:.1f}" for x, y in line) for line in points(example, width, height).tolist()]


def points(example: Shaped[np.ndarray, "..."], width: float, height: float) -> Float64[np.ndarray, "line step xy"]:
    """An example that is no image as lines in a width x height box, y downwards.

    The longest axis runs from left to right; every other index gives a line, eight at most. All lines share one
    scale. A constant example is a line in the middle.
    """
    series = _as_series(example)
    x = np.linspace(0.0, width, series.shape[1]) if series.shape[1] > 1 else np.array([width / 2])
    y = height * (1.0 - _stretched(series))
    return np.stack([np.broadcast_to(x, y.shape), y], axis=2)


def _as_series(example: Shaped[np.ndarray, "..."]) -> NDArray[np.float64]:
    """[line, step], at most 8 lines of 512 points."""
    values = np.nan_to_num(np.atleast_1d(example).astype(np.float64), posinf=0.0, neginf=0.0)
    values = np.moveaxis(values, int(np.argmax(values.shape)), -1)
    values = values.reshape(-1, values.shape[-1])[:_MOST_LINES]
    return values[:, :: -(-values.shape[1] // _MOST_POINTS) or 1]


def _stretched(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Onto 0..1; a constant becomes 0.5."""
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    return np.full(values.shape, 0.5) if high <= low else (values - low) / (high - low)


def _to_bytes(image: Shaped[np.ndarray, "channel height width"]) -> UInt8[np.ndarray, "channel height width"]:
    if image.dtype == np.uint8:
        return image
    values = np.nan_to_num(image.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    if values.size and (values.min() < 0.0 or values.max() > 1.0):
        values = _stretched(values)
    return np.asarray(np.rint(values * 255.0), dtype=np.uint8)
