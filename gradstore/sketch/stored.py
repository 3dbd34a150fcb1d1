"""Influence from rows as a store keeps them: divided by the exact norm, rounded, multiplied by the norm when read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float32, Float64
from numpy.typing import NDArray

from gradstore.store.manifest import SketchDtype
from gradstore.store.quantised import dequantised, quantised, scales_of


def stored_rows(
    sketches: Float32[np.ndarray, "example d_sketch"],
    norms: Float64[np.ndarray, " example"],
    dtype: SketchDtype = "float16",
) -> Float64[np.ndarray, "example d_sketch"]:
    """Sketches as a store keeps them; zeros where the norm is 0."""
    units = sketches / np.where(norms > 0, norms, 1.0)[:, None]
    if dtype != "int8":
        return units.astype(dtype).astype(np.float64)
    scales = scales_of(units)
    return dequantised(quantised(units, scales), scales).astype(np.float64)


def sketched_influence(
    rows: Sequence[NDArray[np.float64]],
    norms: Float64[np.ndarray, "checkpoint example"],
    learning_rates: Float64[np.ndarray, " checkpoint"],
) -> Float64[np.ndarray, "example example"]:
    """TracIn influence of every example on every other, read from stored rows and float32 norms.

    Args:
        rows: [n, d_sketch], one array a checkpoint.
    """
    influence = np.zeros((norms.shape[1], norms.shape[1]))
    for unit, norm, eta in zip(rows, norms.astype(np.float32), learning_rates, strict=True):
        sketches = unit * norm[:, None]
        influence += eta * (sketches @ sketches.T)
    return influence
