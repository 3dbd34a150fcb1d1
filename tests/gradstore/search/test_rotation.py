from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import hadamard

from gradstore.search import rotation
from gradstore.search.rotation import Rotation


def gaussian(n_rows: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n_rows, length)).astype(np.float32)


@pytest.mark.parametrize(("length", "width"), [(1, 8), (8, 8), (9, 16), (512, 512), (600, 1024), (1024, 1024)])
def test_inner_products_stay_what_they_are_up_to_1024_coordinates(length: int, width: int) -> None:
    vectors = gaussian(20, length)
    rotated = Rotation(length).apply(vectors)
    assert rotated.shape == (20, width)
    np.testing.assert_allclose(rotated @ rotated.T, vectors @ vectors.T, atol=length * 2.0**-18)


def test_longer_vectors_keep_them_but_for_noise_of_the_predicted_size() -> None:
    """Cross terms of pieces are sums of 1,024 products with random signs: |x| |q| sqrt(1 - 1 / pieces) / 32."""
    vectors = gaussian(200, 3000)
    rotated = Rotation(3000).apply(vectors)
    error = (rotated @ rotated.T - vectors @ vectors.T)[np.triu_indices(200, 1)]
    assert abs(error.mean()) < 3000 / 32 * 0.05
    assert 0.6 < error.std() / (3000 * np.sqrt(2 / 3) / 32) < 1.2


def test_one_large_coordinate_becomes_many_equal_ones() -> None:
    rotated = Rotation(1024).apply(np.eye(1, 1024, 77, dtype=np.float32))
    np.testing.assert_allclose(abs(rotated), 1 / 32, rtol=1e-6)


@pytest.mark.parametrize("length", [5, 700, 2500])
def test_compiled_and_matrix_product_agree(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = gaussian(7, length)
    compiled = Rotation(length).apply(vectors)
    monkeypatch.setattr(rotation, "has_numba", lambda: False)
    np.testing.assert_allclose(compiled, Rotation(length).apply(vectors), atol=1e-4)


def test_it_is_the_hadamard_matrix_between_signs() -> None:
    rotated = Rotation(16).apply(np.eye(16, dtype=np.float32)) * 4
    columns = rotated * rotated[0]  # takes D' out of every row but for row 0's own signs
    np.testing.assert_array_equal(abs(np.round(columns)), 1)
    assert {tuple(row) for row in np.round(columns * columns[:, :1])} == {tuple(row) for row in hadamard(16)}


def test_the_map_never_changes() -> None:
    """Saved indexes rest on it; these numbers were written down when the first was saved."""
    rotated = Rotation(8).apply(np.arange(1, 9, dtype=np.float32)[None])
    np.testing.assert_allclose(rotated[0] * np.sqrt(8), [16, -16, 4, -12, -4, 12, 20, 20], atol=1e-5)
