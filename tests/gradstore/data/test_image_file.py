"""Pixels of single images: modes, transparency, 16 bits, resizing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gradstore.data.image_file import decode, is_grey, pixels


def test_16_bits_are_scaled_to_8_by_rounding(tmp_path: Path) -> None:
    values = np.array([[0, 128, 129, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = decode(tmp_path / "a.png")
    assert is_grey(image)
    np.testing.assert_array_equal(pixels(image, (1, 1, 4)), np.rint(values[None] / 257))


def test_transparency_is_laid_over_white() -> None:
    image = Image.fromarray(np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 51]]], dtype=np.uint8))
    expected = np.array([[255, 255, 255], [10, 20, 30], [204, 204, 204]])
    np.testing.assert_array_equal(pixels(image, (3, 1, 3))[:, 0].T, expected)


def test_a_transparent_palette_entry_is_laid_over_white(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 0, 200])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=bytes([0, 255]))
    np.testing.assert_array_equal(pixels(decode(tmp_path / "a.png"), (3, 1, 2))[:, 0].T, [[255] * 3, [0, 0, 200]])


@pytest.mark.parametrize("mode", ["1", "L"])
def test_one_channel_modes_are_grey(mode: str) -> None:
    image = Image.new(mode, (2, 2), 1 if mode == "1" else 255)
    assert is_grey(image)
    assert (pixels(image, (1, 2, 2)) == 255).all()


@pytest.mark.parametrize("mode", ["P", "RGB", "RGBA", "LA", "CMYK"])
def test_other_modes_are_not_grey(mode: str) -> None:
    image = Image.new(mode, (2, 2))
    assert not is_grey(image)
    assert pixels(image, (3, 2, 2)).dtype == np.uint8


def test_shrinking_averages_all_pixels() -> None:
    chequered = Image.fromarray((np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8))
    small = pixels(chequered, (1, 8, 8)).astype(int)
    assert np.abs(small - 127.5).max() <= 2


def test_the_whole_image_is_seen_whatever_its_shape() -> None:
    wide = Image.new("L", (100, 10))
    wide.paste(255, (50, 0, 100, 10))
    small = pixels(wide, (1, 10, 10))[0]
    assert (small[:, :4] == 0).all()
    assert (small[:, 6:] == 255).all()


def test_the_first_frame_of_an_animation_counts(tmp_path: Path) -> None:
    frames = [Image.new("L", (2, 2), value) for value in (10, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert (pixels(decode(tmp_path / "a.gif"), (3, 2, 2)) == 10).all()
