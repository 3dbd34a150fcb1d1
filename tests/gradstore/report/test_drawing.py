from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradstore.report.drawing import draw, draw_small, largest_features
from gradstore.report.pictures import is_series, reduced


@pytest.mark.parametrize(
    ("example", "part"),
    [
        (np.zeros((3, 8, 8), np.uint8), "address"),
        (np.zeros((1, 28, 28), np.float32), "address"),
        (np.zeros(40, np.float32), "lines"),
        (np.zeros((8, 2), np.float32), "lines"),
        (np.zeros((1, 50, 3), np.float32), "lines"),
        ("a text", "text"),
        (np.zeros(9, np.float32), "features"),
        (np.zeros(40, np.int64), "features"),
        (np.zeros((2, 3, 4, 5), np.float32), "features"),
    ],
    ids=str,
)
def test_every_kind_of_example_has_its_own_drawing(example: Any, part: str) -> None:
    drawing = draw(example)
    shown = {name for name in ("address", "lines", "text", "features") if getattr(drawing, name)}
    assert shown == {part}
    assert drawing.is_wide == (part in ("text", "features"))


def test_where_there_is_no_room_to_read_a_row_of_a_table_is_a_line() -> None:
    assert draw_small(np.arange(5)).lines == draw_small(np.arange(5.0)).lines
    assert len(draw_small(np.arange(5)).lines) == 1


@pytest.mark.parametrize("shape", [(1, 24, 1), (1, 12, 140), (16,), (5, 2)])
def test_floats_three_times_as_long_as_wide_are_a_series(shape: tuple[int, ...]) -> None:
    assert is_series(np.zeros(shape, np.float32))
    assert not is_series(np.zeros(shape, np.uint8))


def test_pixels_stay_squares_only_where_there_are_few() -> None:
    assert draw(np.zeros((1, 64, 64), np.uint8)).is_tiny
    assert not draw(np.zeros((1, 65, 64), np.uint8)).is_tiny


def test_the_largest_features_come_first_whatever_their_sign() -> None:
    values = np.array([[0.5, -3.0], [2.0, np.nan]])
    assert largest_features(values) == [("1, 1", "nan"), ("0, 1", "-3"), ("1, 0", "2"), ("0, 0", "0.5")]


def test_a_long_text_is_cut_with_an_ellipsis() -> None:
    assert draw("word " * 1000).text.endswith("…")
    assert len(draw("word " * 1000).text) <= 401


def test_a_large_image_is_reduced_and_a_small_one_is_not_touched() -> None:
    small = np.zeros((3, 20, 10), np.float32)
    assert reduced(small, 20) is small
    assert reduced(np.zeros((3, 400, 200), np.float32), 100).shape == (3, 100, 50)
    assert reduced(np.zeros((1, 400, 200), np.uint8), 100).shape == (1, 100, 50)
