"""Robust leverage against its definition: every row is left out in turn, in float64."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from jaxtyping import Float32
from numpy.typing import NDArray

from gradstore.errors import QueryError
from gradstore.influence.robust import held_out_sq_norms

WIDTH = 12


def rows_of(n: int, seed: int = 0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, WIDTH)) * np.geomspace(1.0, 0.05, WIDTH)).astype(np.float32)


def robust(rows: NDArray[np.float32], trusted: NDArray[np.bool_], damping: float = 1e-3) -> NDArray[np.float64]:
    def blocks() -> Iterator[Float32[np.ndarray, "row width"]]:
        for start in range(0, len(rows), 7):
            yield rows[start : start + 7].copy()

    return held_out_sq_norms(blocks, trusted, WIDTH, damping)


def one_at_a_time(rows: NDArray[np.float32], trusted: NDArray[np.bool_], damping: float) -> list[float]:
    wide, n = rows.astype(np.float64), trusted.sum()
    ridge = damping * np.square(wide[trusted]).sum() / (n * WIDTH)
    found = []
    for row in range(len(rows)):
        others = wide[trusted & (np.arange(len(rows)) != row)]
        found.append(wide[row] @ np.linalg.solve(others.T @ others / n + ridge * np.eye(WIDTH), wide[row]))
    return found


@pytest.mark.parametrize("n", [20, 200])
def test_it_is_the_leverage_against_the_trusted_others(n: int) -> None:
    rows, trusted = rows_of(n), np.arange(n) % 10 != 3
    np.testing.assert_allclose(robust(rows, trusted), one_at_a_time(rows, trusted, 1e-3), rtol=1e-3)


def test_being_trusted_changes_nobody_s_own_score() -> None:
    """But for the ridge, which is relative to the trusted rows' mean square."""
    rows = rows_of(150)
    without = robust(rows, np.arange(150) != 5, damping=1e-9)[5] / 149
    np.testing.assert_allclose(robust(rows, np.ones(150, dtype=bool), damping=1e-9)[5] / 150, without, rtol=1e-4)


def test_a_kind_of_bad_rows_cannot_hide_behind_one_another() -> None:
    rows = rows_of(400)
    rows[:40, -1] += 2.0
    masked = robust(rows, np.ones(400, dtype=bool))
    unmasked = robust(rows, np.arange(400) >= 40)
    assert np.median(unmasked[:40]) > 20 * np.median(masked[:40])
    np.testing.assert_allclose(np.median(unmasked[40:]), np.median(masked[40:]), rtol=0.3)


def test_where_all_trusted_rows_are_zero_the_others_stand_against_everyone() -> None:
    rows, trusted = np.zeros((30, WIDTH), dtype=np.float32), np.arange(30) > 2
    rows[:3, :3] = np.eye(3)
    found = robust(rows, trusted)
    assert (found[:3] > 0).all()
    assert (found[3:] == 0).all()
    assert (robust(np.zeros_like(rows), trusted) == 0).all()


@pytest.mark.parametrize(("trusted", "damping"), [(False, 1e-3), (True, 0.0), (True, -1.0)])
def test_without_trusted_rows_or_damping_it_is_refused(trusted: bool, damping: float) -> None:
    with pytest.raises(QueryError, match="needs trusted examples and damping above 0"):
        robust(rows_of(10), np.full(10, trusted), damping)
