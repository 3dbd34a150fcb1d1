"""Sketches as int8 with a scale a row: half the bytes of float16.

    u ≈ q · scale,    scale = max |u| / 127 (float32),    q = rint(u / scale)

Rounding is to the nearest, ties to even: the same row gives the same bytes anywhere. The error of an entry is at most
half a scale. What a user pays is measured by `gradstore fidelity`, on the user's own data.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, Float64, Int8

_LARGEST = 127


def scales_of(units: Float64[np.ndarray, "row d_sketch"]) -> Float32[np.ndarray, " row"]:
    """One number a row; 0 for a row of zeros."""
    return np.asarray(np.abs(units).max(axis=1) / _LARGEST, dtype=np.float32)


def quantised(
    units: Float64[np.ndarray, "row d_sketch"], scales: Float32[np.ndarray, " row"]
) -> Int8[np.ndarray, "row d_sketch"]:
    """-127 to 127; a row whose scale is 0 is zeros."""
    divisors = np.where(scales == 0, 1, scales).astype(np.float64)[:, None]
    return np.rint(np.where(scales[:, None] == 0, 0, units) / divisors).astype(np.int8)


def dequantised(
    rows: Int8[np.ndarray, "row d_sketch"], scales: Float32[np.ndarray, " row"]
) -> Float32[np.ndarray, "row d_sketch"]:
    """What the rows stand for: one float32 product a number."""
    return np.asarray(rows * scales[:, None])
