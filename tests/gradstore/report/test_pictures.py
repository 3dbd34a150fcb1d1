from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from PIL import Image

from gradstore.report.pictures import data_uri, is_image, lines, png

IMAGES = arrays(np.uint8, st.tuples(st.sampled_from([1, 3, 4]), st.integers(1, 9), st.integers(1, 9)))


def decoded(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """[channel, height, width] as another program reads it."""
    pixels = np.asarray(Image.open(BytesIO(png(image))))
    return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)


@given(IMAGES)
def test_a_png_holds_the_pixels(image: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(decoded(image), image)


def test_floats_from_0_to_1_are_black_to_white() -> None:
    image = np.array([[[0.0, 0.5, 1.0]]], dtype=np.float32)
    assert decoded(image).tolist() == [[[0, 128, 255]]]


def test_floats_outside_0_to_1_are_stretched_to_be_seen() -> None:
    assert decoded(np.array([[[-2.0, 0.0, 2.0]]])).tolist() == [[[0, 128, 255]]]


def test_what_is_not_finite_is_black() -> None:
    assert decoded(np.array([[[np.nan, np.inf, 1.0]]])).tolist() == [[[0, 0, 255]]]


def test_a_large_picture_is_reduced() -> None:
    assert decoded(np.zeros((3, 500, 1000), dtype=np.uint8)).shape == (3, 128, 256)


def test_a_data_address_is_a_png() -> None:
    assert data_uri(np.zeros((1, 2, 2), dtype=np.uint8)).startswith("data:image/png;base64,iVBOR")


@pytest.mark.parametrize(("shape", "image"), [((1, 4, 4), True), ((3, 4, 4), True), ((2, 4, 4), False), ((7,), False)])
def test_one_three_or_four_channels_are_an_image(shape: tuple[int, ...], image: bool) -> None:
    assert is_image(np.zeros(shape)) is image


def test_a_series_is_a_line_from_left_to_right_with_high_values_on_top() -> None:
    assert lines(np.array([0.0, 1.0, 0.5]), 10, 100) == ["0.0,100.0 5.0,0.0 10.0,50.0"]


def test_the_longest_axis_is_time_and_the_other_gives_lines() -> None:
    assert len(lines(np.zeros((50, 3)), 10, 10)) == len(lines(np.zeros((3, 50)), 10, 10)) == 3


@given(arrays(np.float32, array_shapes(max_dims=3, max_side=12)))
def test_any_example_can_be_drawn_inside_its_box(example: NDArray[np.float32]) -> None:
    points = [float(number) for line in lines(example, 10, 10) for number in line.replace(",", " ").split()]
    assert points
    assert all(0.0 <= number <= 10.0 for number in points)
