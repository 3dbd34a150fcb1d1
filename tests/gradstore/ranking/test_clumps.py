"""Groups that lie together and apart, and what is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gradstore.ranking.signals import compute_signals, reference
from gradstore.testing.store_kit import store_of

N = 400


def clump_of(folder: Path, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of points that are the latents of both checkpoints."""
    n = len(points)
    sketches = np.random.default_rng(9).normal(size=(2, n, 4))
    store = store_of(folder, sketches, losses=np.ones((2, n)), latents=np.stack([points, points]))
    return compute_signals(store, ["clump"])["clump"]


def cloud(seed: int = 0, n: int = N) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(n, 6))


def test_it_is_the_largest_leap_of_sorted_distances(tmp_path: Path) -> None:
    points = cloud()
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    ordered = np.sort(distances, axis=1)[:, 1:]
    sizes = np.arange(5, N // 20 + 1)
    expected = np.log10(ordered[:, 2 * sizes - 1] / ordered[:, sizes - 1]).max(axis=1)
    np.testing.assert_allclose(clump_of(tmp_path / "s", points), expected, atol=1e-3)


@pytest.mark.parametrize("size", [7, 12, 20])
def test_a_group_close_together_and_far_from_all_else_stands_out(tmp_path: Path, size: int) -> None:
    points = cloud()
    points[:size] = points[:size] * 0.05 + np.array([6.0, 0, 0, 0, 0, 0])
    found = clump_of(tmp_path / "s", points)
    assert found[:size].min() > 1.0
    assert found[size:].max() < 0.45


def test_a_dense_region_is_no_group(tmp_path: Path) -> None:
    points = cloud()
    points[: N // 2] *= 0.1
    assert np.median(clump_of(tmp_path / "s", points)) < 0.45


def test_copies_of_one_example_are_a_group_and_finite(tmp_path: Path) -> None:
    points = cloud()
    points[:10] = points[0]
    found = clump_of(tmp_path / "s", points)
    assert found[:10].min() > 3.0
    assert np.isfinite(found).all()


def test_equal_examples_and_few_examples_are_none(tmp_path: Path) -> None:
    assert clump_of(tmp_path / "equal", np.ones((N, 6))).tolist() == [0.0] * N
    assert clump_of(tmp_path / "few", cloud(n=99)).tolist() == [0.0] * 99


def test_among_a_part_of_the_data_a_group_is_found_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "N_WIDE_REFERENCE", 300)
    points = cloud()
    points[:15] = points[:15] * 0.05 + np.array([6.0, 0, 0, 0, 0, 0])
    found = clump_of(tmp_path / "s", points)
    assert found[:15].min() > found[15:].max()
