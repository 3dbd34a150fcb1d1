"""One image file: decoding it whole, and its pixels as [C, H, W] bytes.

Why pixels are taken as they are stored, without the EXIF orientation: that is what torchvision's ImageFolder
gives, so a model that was trained elsewhere saw these pixels. Of animations and multi-page files the first
frame counts.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError

from gradstore.errors import CorruptExampleError

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")  # never a format that starts another program, such as EPS


def decode(path: Path) -> Image.Image:
    """The first frame, decoded whole.

    Raises:
        CorruptExampleError: it cannot be; the message is the reason alone, the caller names the file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=_FORMATS) as image:
                image.load()
                decoded = image.copy()
        except UnidentifiedImageError as error:
            raise CorruptExampleError("not an image") from error
        except Exception as error:  # broken bytes make Pillow's decoders raise anything, TypeError included
            raise CorruptExampleError(str(error) or type(error).__name__) from error
    if decoded.mode in ("I", "F"):
        raise CorruptExampleError(f"mode {decoded.mode} has 32-bit pixels without a fixed range: use 8 or 16 bits")
    return decoded


def is_grey(image: Image.Image) -> bool:
    """Whether one channel holds all that the image shows: mode 1, L or 16 bit, without transparency."""
    return (image.mode in ("1", "L") or _is_16_bit(image)) and not image.has_transparency_data


def pixels(image: Image.Image, shape: tuple[int, int, int]) -> UInt8[np.ndarray, "channel height width"]:
    """The whole image at `shape` (1 or 3, H, W): 16 bits scaled to 8, transparency over white, bilinear resizing."""
    channels, height, width = shape
    eight_bit = _scaled_to_8_bit(image) if _is_16_bit(image) else image
    converted = eight_bit.convert("L") if channels == 1 else _over_white(eight_bit)
    if converted.size != (width, height):
        converted = converted.resize((width, height), Image.Resampling.BILINEAR)  # Pillow's averages when shrinking
    return np.asarray(converted).reshape(height, width, channels).transpose(2, 0, 1)


def _is_16_bit(image: Image.Image) -> bool:
    return image.mode.startswith("I;16")


def _scaled_to_8_bit(image: Image.Image) -> Image.Image:
    """65535 -> 255, rounded to nearest."""
    values = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
