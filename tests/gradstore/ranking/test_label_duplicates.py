from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gradstore.ranking.signals import compute_signals
from gradstore.store import Store
from gradstore.testing.store_kit import store_of


@pytest.fixture
def copies(tmp_path: Path) -> Store:
    """Fifty points in three pairs of equal ones: labels agree, contradict, and one has none."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(1, 50, 8))
    labels: list[int | None] = rng.integers(0, 2, 50).tolist()
    for first, pair in ((0, (1, 1)), (2, (0, 1)), (4, (None, 1))):
        points[0, first + 1] = points[0, first]
        labels[first : first + 2] = pair
    return store_of(tmp_path / "store", points, labels=labels)


def computed(store: Store, name: str) -> NDArray[np.float64]:
    return compute_signals(store, [name])[name]


def test_copies_contradict_when_their_labels_differ(copies: Store) -> None:
    values = computed(copies, "contradicting_duplicate")
    assert (values[2:4] == 5.0).all()
    assert values[[0, 1, 4, 5]].max() < 1.0
    assert (values >= 0).all()


def test_a_contradiction_is_no_nearer_than_the_nearest_duplicate(copies: Store) -> None:
    near = computed(copies, "near_duplicate")
    assert (computed(copies, "contradicting_duplicate") <= near + 1e-12).all()
