from __future__ import annotations

from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from gradstore.errors import QueryError, ShapeError
from gradstore.evaluation import mislabelling
from gradstore.evaluation.planting import flip_labels, most_alike_classes

Labels = NDArray[np.int64]


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


def test_labels_are_chosen_first_and_then_moved_as_in_published_benchmarks() -> None:
    labels = np.arange(50) % 5
    flipped, mask = flip_labels(labels, 10, 5, seed=3)
    rng = np.random.default_rng(3)
    rows = np.sort(rng.choice(50, 10, replace=False))
    np.testing.assert_array_equal(np.flatnonzero(mask), rows)
    np.testing.assert_array_equal(flipped[rows], (labels[rows] + rng.integers(1, 5, 10)) % 5)


def test_class_dependent_flips_go_where_they_are_sent_and_hit_the_same_examples() -> None:
    labels, towards = np.arange(50) % 5, np.array([4, 0, 0, 0, 3])
    flipped, mask = flip_labels(labels, 10, 5, 3, towards)
    np.testing.assert_array_equal(flipped, np.where(mask, towards[labels], labels))
    np.testing.assert_array_equal(mask, flip_labels(labels, 10, 5, 3)[1])


@given(st.lists(st.integers(-1, 3), min_size=1), st.integers(0, 1000), st.booleans())
def test_what_has_no_label_gets_none(values: list[int], seed: int, class_dependent: bool) -> None:
    labels = np.array(values)
    n = int((labels >= 0).sum())
    towards = np.array([1, 2, 3, 0]) if class_dependent else None
    flipped, mask = flip_labels(labels, n, 4, seed, towards)
    np.testing.assert_array_equal(mask, labels >= 0)
    np.testing.assert_array_equal(flipped != labels, mask)


def test_more_labels_than_there_are_cannot_be_flipped() -> None:
    with pytest.raises(QueryError, match="Cannot flip 4 labels of 3; ask for 0 to 3"):
        flip_labels(np.array([0, 1, -1, 1]), 4, 2, seed=0)


@pytest.mark.parametrize("label", [-2, 3])
def test_labels_that_are_no_class_are_named(label: int) -> None:
    with pytest.raises(QueryError, match=f"Label {label} is no class: 3 classes have the numbers 0 to 2"):
        flip_labels(np.array([0, label]), 1, 3, seed=0)
    with pytest.raises(QueryError, match=f"Label {label} is no class"):
        most_alike_classes(np.zeros((3, 1)), np.array([0, 1, label]), 3, seed=0)


@pytest.mark.parametrize("towards", [[0, 0], [-1, 0], [2, 0]])
def test_a_class_must_be_mistaken_for_another(towards: list[int]) -> None:
    with pytest.raises(QueryError, match=f"class 0 mistaken for {towards[0]}; expected another class, from 0 to 1"):
        flip_labels(np.array([0, 1]), 1, 2, 0, np.array(towards))
    with pytest.raises(QueryError, match="give one class for each of 3"):
        flip_labels(np.array([0, 1]), 1, 3, 0, np.array(towards))


def test_a_class_without_examples_may_go_nowhere() -> None:
    assert flip_labels(np.array([0, 0]), 2, 3, 0, np.array([2, -1, -1]))[0].tolist() == [2, 2]


def clusters(centres: list[list[float]], n: int = 60, seed: int = 0) -> tuple[NDArray[np.float32], Labels]:
    """One class around each centre, of standard deviation 1."""
    labels = np.repeat(np.arange(len(centres)), n)
    points = np.array(centres)[labels] + np.random.default_rng(seed).normal(size=(len(labels), len(centres[0])))
    return points.astype(np.float32), labels


def counted(points: NDArray[Any], labels: Labels, n_classes: int) -> list[int]:
    """By hand: of each example the five nearest others, of each class the strangers among these."""
    found = []
    for c in range(n_classes):
        strangers: list[int] = []
        for row in np.flatnonzero(labels == c):
            distances = np.linalg.norm(points.astype(np.float64) - points[row], axis=1)
            nearest = [other for other in np.argsort(distances) if other != row][:5]
            strangers += [int(labels[other]) for other in nearest if labels[other] != c]
        found.append(int(np.bincount(strangers).argmax()))
    return found


def test_most_alike_is_the_commonest_stranger_among_neighbours() -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 3, 3), dtype=np.uint8)
    labels = np.random.default_rng(1).integers(0, 4, 200)
    assert most_alike_classes(images, labels, 4, seed=0).tolist() == counted(images.reshape(200, 9), labels, 4)


def test_neighbouring_clusters_are_alike_and_classes_without_examples_have_none() -> None:
    points, labels = clusters([[0, 0], [3, 0], [20, 0], [23, 0]])
    assert most_alike_classes(points, labels + (labels > 1), 6, seed=0).tolist() == [1, 0, -1, 4, 3, -1]


def test_a_class_apart_is_like_the_nearest_outsiders() -> None:
    points, labels = clusters([[0], [1000], [3000]])
    assert most_alike_classes(points, labels, 3, seed=0).tolist() == [1, 0, 1]


def test_distances_in_parts_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mislabelling, "_MEMORY", 1)  # MiB: 300 rows of 900 distances are two
    points, labels = clusters([[0], [1000], [3000]], n=300)
    assert most_alike_classes(points, labels, 3, seed=0).tolist() == [1, 0, 1]
    mixed = np.random.default_rng(0).integers(0, 3, 900)
    assert most_alike_classes(points, mixed, 3, seed=0).tolist() == counted(points, mixed, 3)


def test_columns_of_a_table_count_alike_whatever_their_unit() -> None:
    points, labels = clusters([[0, 0], [3, 0], [0, 9], [3, 9]], n=200)
    expected = [1, 0, 3, 2]
    assert most_alike_classes(points, labels, 4, seed=0).tolist() == expected
    assert most_alike_classes(points * np.array([1, 1e-3], np.float32), labels, 4, seed=0).tolist() == expected


def test_texts_are_alike_by_the_words_they_share() -> None:
    """Classes 0 and 1 share half of their words, 2 and 3 theirs; the numbers of the words say the opposite."""
    words = [range(0, 20), range(10, 30), range(30, 50), range(40, 60)]
    rng, mixed = np.random.default_rng(0), np.random.default_rng(1).permutation(60) * 10**15
    tokens = np.concatenate([rng.choice(np.array(list(of)), (40, 12)) for of in words])
    found = most_alike_classes(mixed[tokens], np.repeat(np.arange(4), 40), 4, seed=0)
    assert found.tolist() == [1, 0, 3, 2]


def test_of_large_data_some_are_looked_at_of_every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mislabelling, "_AT_MOST", 400)
    looked_at = mock.Mock(wraps=mislabelling._neighbours)
    monkeypatch.setattr(mislabelling, "_neighbours", looked_at)
    points, labels = clusters([[0, 0], [3, 0], [20, 0]], n=1000)
    points, labels = np.concatenate([points, [[23, 0], [23, 1]]]).astype(np.float32), np.append(labels, [3, 3])
    assert most_alike_classes(points, labels, 4, seed=0).tolist() == [1, 0, 3, 2]
    assert np.bincount(looked_at.call_args.args[1]).tolist() == [100, 100, 100, 2]


def test_unlabelled_examples_are_nobodys_neighbours() -> None:
    points, labels = clusters([[0, 0], [3, 0], [0.1, 0.1]])
    labels[labels == 2] = -1
    assert most_alike_classes(points, labels, 2, seed=0).tolist() == [1, 0]


def test_constant_data_have_some_answer() -> None:
    found = most_alike_classes(np.ones((12, 4), np.float32), np.arange(12) % 3, 3, seed=0)
    assert all(0 <= other < 3 and other != c for c, other in enumerate(found.tolist()))


@pytest.mark.parametrize("labels", [[0, 0, 0], [-1, -1, -1], [1, -1, 1]])
def test_one_class_is_like_no_other(labels: list[int]) -> None:
    with pytest.raises(QueryError, match=r"Examples of [01] of 2 classes are here.*needs two"):
        most_alike_classes(np.zeros((3, 2)), np.array(labels), 2, seed=0)


def test_one_label_an_example_is_needed() -> None:
    with pytest.raises(ShapeError, match="3 examples have 2 labels"):
        most_alike_classes(np.zeros((3, 2)), np.array([0, 1]), 2, seed=0)
