"""All checkpoints of an example folded into one rotated vector of at most 1,024 coordinates, for approximate indexes.

    y(x) = sum_p D'_p H D_p z_p(x)        H the Walsh–Hadamard matrix / sqrt(width), D_p and D'_p random signs

where z_p are pieces of 1,024 coordinates of the weighted sketches, all checkpoints side by side. One piece: a rotation,
inner products stay as they are. Several: cross terms stay behind as noise of about |x| |q| / 32, which exact re-ranking
takes out again (`gradstore.search.rerank`).

Why rotate: one-bit codes (RaBitQ) and product codes assume that no coordinate matters more than another. Those of
count sketches do not oblige: 60,000 Fashion-MNIST gradients (encoder of a VAE, 1,024 coordinates) have some 17
directions that count. Recall of the best 100 among 1,000 candidates of one-bit codes: .964 as they are, 1.000 rotated.

Why fold: FAISS's fast scan sums one byte for every four coordinates in 16 bits, which overflow above 1,024 coordinates
(seen: recall .03 at 5 x 1,024), and memory and time are proportional to the width. The five checkpoints of that store
folded to 1,024 coordinates, 136 bytes an example: recall .998.

Cost, one thread: 1.1 us for a row of 512, compiled; 7 us as a matrix product, where numba is missing.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from gradstore.compiled import compiled, has_numba

WIDEST = 1024
_NARROWEST = 8


@dataclass(frozen=True)
class Rotation:
    """The same map for every row and query of a store; equal arguments give equal maps, everywhere."""

    length: int
    """coordinates of z, all checkpoints side by side"""

    @property
    def width(self) -> int:
        """Coordinates of y: a power of two from 8 to 1,024."""
        return min(WIDEST, max(_NARROWEST, 1 << (self.length - 1).bit_length()))

    def apply(self, vectors: Float32[np.ndarray, "row length"]) -> Float32[np.ndarray, "row width"]:
        """The y of every z."""
        rotated = np.zeros((len(vectors), self.width), np.float32)
        fold = _compiled_fold() if has_numba() else _fold_as_product
        for piece, start in enumerate(range(0, self.length, self.width)):
            fold(vectors[:, start : start + self.width], self._signs[piece, 0], self._signs[piece, 1], rotated)
        rotated *= np.float32(1 / np.sqrt(self.width))
        return rotated

    @functools.cached_property
    def _signs(self) -> Float32[np.ndarray, "piece 2 width"]:
        """D and D' of every piece. From a hash: the streams of numpy's generators may change with its version."""
        count = -(-self.length // self.width) * 2 * self.width
        random = hashlib.shake_256(b"gradstore.search.rotation 1").digest(count // 8)
        bits = np.unpackbits(np.frombuffer(random, np.uint8))
        return (2.0 * bits - 1.0).astype(np.float32).reshape(-1, 2, self.width)


def _fold_as_product(vectors: Any, before: Any, after: Any, out: Any) -> None:
    from scipy.linalg import hadamard

    length = vectors.shape[1]
    out += ((vectors * before[:length]) @ hadamard(len(before), dtype=np.float32)[:length]) * after


@functools.cache
def _compiled_fold() -> Callable[..., None]:
    return compiled(_fold)


def _fold(vectors: Any, before: Any, after: Any, out: Any) -> None:
    """Add D' H D z to `out`, for one piece of every z; the first two stages of H at once, in registers."""
    width = len(before)
    row = np.empty(width, np.float32)
    for r in range(vectors.shape[0]):
        piece = vectors[r]
        for i in range(len(piece)):
            row[i] = piece[i] * before[i]
        row[len(piece) :] = 0
        for i in range(0, width, 4):
            a, b, c, d = row[i] + row[i + 1], row[i] - row[i + 1], row[i + 2] + row[i + 3], row[i + 2] - row[i + 3]
            row[i], row[i + 1], row[i + 2], row[i + 3] = a + c, b + d, a - c, b - d
        half = 4
        while half < width:
            for i in range(0, width, 2 * half):
                low, high = row[i : i + half], row[i + half : i + 2 * half]
                for j in range(half):
                    total, difference = low[j] + high[j], low[j] - high[j]
                    low[j], high[j] = total, difference
            half *= 2
        target = out[r]
        for i in range(width):
            target[i] += row[i] * after[i]
