from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gradstore.errors import QueryError, ShapeError
from gradstore.evaluation.planting import KINDS, KINDS_EXPLAINED, kinds_for, plant

Bytes = NDArray[np.uint8]
Examples = NDArray[Any]
OF_BYTES = ("inverted", "rotated", "noise", "dead_rows", "permuted", "foreign")


def images(n: int = 40, *shape: int, seed: int = 0) -> Bytes:
    return np.random.default_rng(seed).integers(1, 255, (n, *(shape or (1, 6, 6))), dtype=np.uint8)


def planted_pair(kind: str, rows: Bytes | None = None, n: int = 8) -> tuple[Bytes, Bytes]:
    """Originals and what was planted in their place."""
    originals = images() if rows is None else rows
    planted, mask = plant(originals, kind, n, seed=3, foreign=images(seed=9))
    assert mask.sum() == n
    np.testing.assert_array_equal(planted[~mask], originals[~mask])
    return originals[mask], planted[mask]


@pytest.mark.parametrize("kind", OF_BYTES)
def test_every_planted_example_differs_and_the_others_stay(kind: str) -> None:
    before, after = planted_pair(kind)
    assert all((a != b).any() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", OF_BYTES)
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


def test_features_in_bytes_can_be_planted_too() -> None:
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


def of_form(form: str, n: int = 40, seed: int = 0) -> Examples:
    """Examples as data have them."""
    rng = np.random.default_rng(seed)
    makers: dict[str, Callable[[], Examples]] = {
        "images": lambda: rng.integers(1, 255, (n, 3, 6, 6), dtype=np.uint8),
        "images of floats": lambda: rng.uniform(-1, 1, (n, 1, 6, 6)).astype(np.float32),
        "images of whole numbers": lambda: rng.integers(0, 4096, (n, 1, 6, 6)),
        "series": lambda: rng.normal(size=(n, 12, 2)).astype(np.float32),
        "table": lambda: rng.normal(size=(n, 8)).astype(np.float32),
        "table of bytes": lambda: rng.integers(1, 255, (n, 8), dtype=np.uint8),
        "tokens": lambda: rng.integers(0, 50, (n, 16)),
    }
    return makers[form]()


FORMS = {
    "images": "inverted rotated noise permuted dead_rows duplicates",
    "images of floats": "inverted rotated noise permuted dead_rows duplicates",
    "images of whole numbers": "inverted rotated noise permuted dead_rows duplicates",
    "series": "shuffled reversed scaled dead_steps permuted duplicates",
    "table": "shuffled scaled spiked permuted duplicates",
    "table of bytes": "shuffled scaled spiked permuted duplicates",
    "tokens": "shuffled_tokens noise repeated duplicates",
}
CASES = [(form, kind) for form, kinds in FORMS.items() for kind in kinds.split()]


@pytest.mark.parametrize("form", FORMS)
def test_the_kinds_that_fit_follow_from_shape_and_dtype(form: str) -> None:
    examples = of_form(form)
    assert " ".join(kinds_for(examples.shape[1:], examples.dtype)) == FORMS[form]


@pytest.mark.parametrize(("form", "kind"), CASES)
def test_kinds_that_fit_can_be_planted_into_any_data(form: str, kind: str) -> None:
    examples = of_form(form)
    planted, mask = plant(examples, kind, 8, seed=3)
    assert mask.sum() == 8
    changed = (planted != examples).reshape(len(examples), -1).any(axis=1)
    assert changed.sum() == (4 if kind == "duplicates" else 8)
    assert not (changed & ~mask).any()
    assert planted.dtype == examples.dtype
    np.testing.assert_array_equal(examples, of_form(form))
    again, other = plant(examples, kind, 8, seed=3), plant(examples, kind, 8, seed=4)
    np.testing.assert_array_equal(planted, again[0])
    assert (mask != other[1]).any()


@pytest.mark.parametrize(("form", "kind"), CASES)
def test_as_many_as_there_are_can_be_planted(form: str, kind: str) -> None:
    _, mask = plant(of_form(form), kind, 40, seed=0)
    assert mask.all()


@pytest.mark.parametrize(("form", "kind"), CASES)
def test_constant_data_can_hold_few_kinds_and_the_others_say_so(form: str, kind: str) -> None:
    constant = np.full_like(of_form(form), 7)
    if kind in ("inverted", "noise", "dead_rows") and constant.dtype == np.uint8:
        plant(constant, kind, 2, seed=0)  # black and white are known without the data
    elif kind == "duplicates" and form != "tokens":
        assert plant(constant, kind, 2, seed=0)[1].sum() == 2
    else:
        with pytest.raises(QueryError, match=f"'{kind}' changes only 0 of 40 examples; 2 were.*another kind: "):
            plant(constant, kind, 2, seed=0)


@pytest.mark.parametrize(("form", "kind"), [case for case in CASES if of_form(case[0]).dtype == np.float32])
def test_values_within_0_to_1_stay_there(form: str, kind: str) -> None:
    examples = of_form(form)
    lowest, highest = examples.min(), examples.max()
    planted, _ = plant((examples - lowest) / (highest - lowest), kind, 40, seed=0)
    assert planted.min() >= 0
    assert planted.max() <= 1


def test_a_row_is_chosen_first_and_then_spoilt_as_in_published_benchmarks() -> None:
    """The random numbers and their order: other ones would plant other examples into the benchmarks' cells."""
    planted, mask = plant(images(), "noise", 8, seed=3)
    rng = np.random.default_rng(3)
    rows = rng.permutation(40)[:8]
    for row in rows:
        np.testing.assert_array_equal(planted[row], rng.integers(0, 256, (1, 6, 6), dtype=np.uint8))
    assert set(np.flatnonzero(mask)) == set(rows)
    _, mask = plant(images(), "permuted", 8, seed=3)
    rng = np.random.default_rng(3)
    rng.permutation(36)  # what all planted rows share comes before the rows
    assert set(np.flatnonzero(mask)) == set(rng.permutation(40)[:8])


def test_every_kind_is_explained_in_one_sentence() -> None:
    assert {kind for _, kind in CASES} | {"foreign"} == set(KINDS)
    for words in KINDS_EXPLAINED.values():
        assert words[0].isupper()
        assert words.endswith(".")
        assert "." not in words[:-1]


def test_foreign_rows_may_be_of_any_dtype_that_is_the_same() -> None:
    series, others = of_form("series"), of_form("series", seed=9)
    planted, mask = plant(series, "foreign", 3, seed=0, foreign=others)
    assert {row.tobytes() for row in planted[mask]} <= {row.tobytes() for row in others}
    with pytest.raises(ShapeError, match=r"plants float32 rows shaped \(12, 2\); found float64"):
        plant(series, "foreign", 3, seed=0, foreign=others.astype(np.float64))


@pytest.mark.parametrize(
    ("form", "kind", "needs"),
    [
        ("table", "rotated", "images"),
        ("images", "reversed", "series"),
        ("table", "repeated", "whole numbers"),
        ("tokens", "scaled", "numbers that say how much"),
    ],
)
def test_a_kind_for_other_data_names_those_that_fit(form: str, kind: str, needs: str) -> None:
    with pytest.raises(ShapeError, match=f"'{kind}' needs {needs}.*These fit: {FORMS[form].split()[0]}"):
        plant(of_form(form), kind, 2, seed=0)


@pytest.mark.parametrize("examples", [np.zeros(5), np.zeros((5, 0)), np.array([["a"], ["b"]]), np.zeros((5, 2), bool)])
def test_what_holds_no_numbers_is_refused(examples: Examples) -> None:
    with pytest.raises(ShapeError, match=r"cannot be contaminated; expected bytes"):
        plant(examples, "noise", 1, seed=0)


@pytest.mark.parametrize("n", [-1, 41])
def test_more_than_there_are_cannot_be_planted(n: int) -> None:
    with pytest.raises(QueryError, match=f"Cannot plant {n} examples among 40"):
        plant(images(), "noise", n, seed=0)
    with pytest.raises(QueryError, match="among 0"):
        plant(images(0, 4, 4), "noise", 0, seed=0)


def test_a_single_place_has_nothing_to_be_rearranged() -> None:
    assert kinds_for((1,), np.dtype(np.float32)) == ("scaled", "spiked")
    assert kinds_for((1, 5), np.dtype(np.float32)) == ("scaled",)
    assert kinds_for((3, 1, 1), np.dtype(np.uint8)) == ("inverted", "noise", "dead_rows")
    for kind in kinds_for((1,), np.dtype(np.float32)):
        assert plant(of_form("table")[:, :1], kind, 4, seed=0)[1].sum() == 4
