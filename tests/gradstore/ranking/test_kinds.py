from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gradstore.ranking.kinds import Evidence, class_percentile, kinds

N = 200


def words(
    suspicious: list[int], within: NDArray[np.float64] | None = None, **values: NDArray[np.float64]
) -> list[str | None]:
    chosen = np.isin(np.arange(N), suspicious)
    return kinds(Evidence(values, N, within), chosen).to_pylist()


def highest_at(row: int) -> NDArray[np.float64]:
    return np.where(np.arange(N) == row, 9.0, np.linspace(0.0, 1.0, N))


def test_a_suspicious_example_is_named_by_what_stands_out() -> None:
    found = words([3, 4, 5], loss=highest_at(3), robust_unit_leverage=highest_at(4))
    assert found[3:6] == ["corrupted", "foreign", "rare but plausible"]


def test_what_is_not_suspicious_has_no_kind() -> None:
    found = words([3], loss=highest_at(3))
    assert [row for row, word in enumerate(found) if word] == [3]


def test_a_duplicate_is_named_whether_suspicious_or_not() -> None:
    near = np.where(np.arange(N) < 2, 1.2, 0.1)
    assert words([1], near_duplicate=near, loss=highest_at(1))[:3] == ["duplicate", "duplicate", None]


def test_an_ordinary_example_of_a_class_that_stands_out_is_plausible() -> None:
    within = np.where(np.arange(N) == 3, 40.0, 99.0)
    assert words([3], within, loss=highest_at(3))[3] == "rare but plausible"


def test_a_class_percentile_counts_within_the_class() -> None:
    scores = np.array([1.0, 5.0, 2.0, 9.0, 9.0])
    labels = np.array([0, 0, 1, 1, -1], dtype=np.int32)
    found = class_percentile(scores, labels)
    assert found is not None
    assert found.tolist() == [0.0, 50.0, 0.0, 50.0, 0.0]
    assert class_percentile(scores, None) is None
