from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gradstore.errors import QueryError, ShapeError
from gradstore.evaluation.planting import KINDS, flip_labels, plant

Bytes = NDArray[np.uint8]


def images(n: int = 40, *shape: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(1, 255, (n, *(shape or (1, 6, 6))), dtype=np.uint8)


def planted_pair(kind: str, rows: Bytes | None = None, n: int = 8) -> tuple[Bytes, Bytes]:
    """Originals and what was planted in their place."""
    originals = images() if rows is None else rows
    planted, mask = plant(originals, kind, n, seed=3, foreign=images(seed=9))
    assert mask.sum() == n
    np.testing.assert_array_equal(planted[~mask], originals[~mask])
    return originals[mask], planted[mask]


@pytest.mark.parametrize("kind", KINDS)
def test_every_planted_example_differs_and_the_others_stay(kind: str) -> None:
    before, after = planted_pair(kind)
    assert all((a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_alone_decides_and_the_input_stays_as_it_was(kind: str) -> None:
    originals, others = images(), images(seed=9)
    first, again = (plant(originals, kind, 5, 1, others) for _ in range(2))
    other = plant(originals, kind, 5, 2, others)
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[1] != other[1]).any()
    np.testing.assert_array_equal(originals, images())


def test_inverted_is_255_minus_the_image() -> None:
    before, after = planted_pair("inverted")
    np.testing.assert_array_equal(after, 255 - before)


def test_rotated_is_one_of_three_turns_and_all_of_them_occur() -> None:
    before, after = planted_pair("rotated", n=30)
    turns = [
        next(q for q in (1, 2, 3) if np.array_equal(np.rot90(b, q, axes=(1, 2)), a))
        for b, a in zip(before, after, strict=True)
    ]
    assert set(turns) == {1, 2, 3}


def test_an_oblong_image_is_turned_by_180_degrees() -> None:
    before, after = planted_pair("rotated", images(20, 4, 7))
    np.testing.assert_array_equal(after, before[:, ::-1, ::-1])


def test_an_image_that_a_half_turn_leaves_alone_is_turned_by_a_quarter() -> None:
    striped = np.tile(np.array([[1, 9, 1]], dtype=np.uint8), (20, 3, 1))
    before, after = planted_pair("rotated", striped)
    np.testing.assert_array_equal(after, before.transpose(0, 2, 1))


def test_permuted_moves_the_pixels_of_all_images_and_channels_alike() -> None:
    before, after = planted_pair("permuted", images(30, 3, 5, 5))
    flat_before, flat_after = before.reshape(-1, 25), after.reshape(-1, 25)
    order = [int(np.flatnonzero((flat_before == column[:, None]).all(axis=0))[0]) for column in flat_after.T]
    assert sorted(order) == list(range(25))


def test_dead_rows_are_one_block_a_third_as_high_as_the_image() -> None:
    before, after = planted_pair("dead_rows", images(30, 9, 6))
    for image, damaged in zip(before, after, strict=True):
        dead = np.flatnonzero((damaged == 0).all(axis=1))
        assert np.array_equal(dead, np.arange(dead[0], dead[0] + 3))
        np.testing.assert_array_equal(np.delete(damaged, dead, axis=0), np.delete(image, dead, axis=0))


def test_foreign_rows_come_from_the_other_array_each_at_most_once() -> None:
    _, after = planted_pair("foreign")
    others = {row.tobytes() for row in images(seed=9)}
    planted = [row.tobytes() for row in after]
    assert set(planted) <= others
    assert len(set(planted)) == 8


def test_a_row_that_the_kind_would_not_change_is_passed_over() -> None:
    rows = np.zeros((10, 4, 4), dtype=np.uint8)
    rows[[2, 7]] = images(2, 4, 4)
    _, mask = plant(rows, "rotated", 2, seed=0)
    assert np.flatnonzero(mask).tolist() == [2, 7]


def test_too_few_rows_that_could_change_is_an_error() -> None:
    with pytest.raises(QueryError, match="'rotated' changes only 0 of 10 examples; 1 were to be planted"):
        plant(np.zeros((10, 4, 4), dtype=np.uint8), "rotated", 1, seed=0)


def test_features_can_be_planted_too() -> None:
    for kind in ("inverted", "noise", "permuted"):
        planted_pair(kind, images(20, 12))
    with pytest.raises(ShapeError, match="needs images"):
        plant(images(20, 12), "rotated", 2, seed=0)


def test_an_unknown_kind_lists_the_kinds() -> None:
    with pytest.raises(QueryError, match="Use one of: inverted, rotated, noise, dead_rows, permuted, foreign"):
        plant(images(), "upside", 2, seed=0)


@pytest.mark.parametrize("foreign", [None, images(5, 2, 2)])
def test_foreign_needs_rows_of_the_same_shape(foreign: Bytes | None) -> None:
    with pytest.raises(ShapeError, match="rows shaped"):
        plant(images(), "foreign", 2, seed=0, foreign=foreign)


def test_floats_are_refused() -> None:
    with pytest.raises(ShapeError, match="float32"):
        plant(images().astype(np.float32), "inverted", 2, seed=0)


@given(st.integers(0, 30), st.integers(2, 5), st.integers(0, 1000))
def test_a_flipped_label_is_another_class_and_the_rest_stay(n: int, n_classes: int, seed: int) -> None:
    labels = np.arange(30) % n_classes
    flipped, mask = flip_labels(labels, n, n_classes, seed)
    assert mask.sum() == n
    np.testing.assert_array_equal(flipped != labels, mask)
    assert ((flipped >= 0) & (flipped < n_classes)).all()


def test_flips_are_uniform_over_the_other_classes() -> None:
    flipped, _ = flip_labels(np.zeros(9000, dtype=np.int64), 9000, 4, seed=0)
    counts = np.bincount(flipped, minlength=4)
    assert counts[0] == 0
    assert (np.abs(counts[1:] - 3000) < 5 * np.sqrt(2000)).all()  # five standard deviations of a binomial


def test_labels_of_one_class_cannot_be_flipped() -> None:
    with pytest.raises(QueryError, match="two classes are needed"):
        flip_labels(np.zeros(5, dtype=np.int64), 1, 1, seed=0)
