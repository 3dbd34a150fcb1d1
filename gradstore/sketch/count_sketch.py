"""Row-offset count sketch: all layers summed into one short vector.

A parameter is read as a matrix (`matrix_shape`). Its coordinate (r, c) lands on `(offset[r] + c) mod d` with a
random sign, so a whole matrix row is added to one contiguous window of the sketch: memory traffic of a plain
sum instead of a scatter. Offsets and signs come from a counter generator keyed by (seed, stream, parameter
name, coordinate): every code path of a layer, every worker and every machine uses the same hash.

Why there are streams: inner products at different checkpoints are summed, and with a projection of its own for
each checkpoint their errors average out instead of adding up (measured on a VAE of digits, two checkpoints:
Pearson .984 to .990 with exact influence).

Why layers are summed and not given shares of d: measured, it is as good as the optimal shares and needs no
norms beforehand. Inner products are unbiased and their variance is at most that of an ordinary count sketch,
because two coordinates of one row never meet while the row is no longer than d.

Source: Charikar, Chen & Farach-Colton 2002 (count sketch); Weinberger et al. 2009 (feature hashing).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradstore.errors import ShapeError
from gradstore.sketch.counter import hash_words, key_of
from gradstore.sketch.fold import fold_dense, fold_outer

_SIGN, _OFFSET = 0, 1


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns of a parameter: first axis against the rest; a vector is one row.

    >>> matrix_shape((32, 16, 3, 3)), matrix_shape((7,)), matrix_shape(())
    ((32, 144), (1, 7), (1, 1))
    """
    return (shape[0], math.prod(shape[1:])) if len(shape) > 1 else (1, math.prod(shape))


@dataclass(frozen=True)
class _Hash:
    """Where one parameter's coordinates go. `swapped`: columns play the rows' part, being fewer."""

    signs: Tensor  # [rows, columns] of +-1, after swapping
    offsets: Int[Tensor, " row"]  # after swapping
    swapped: bool


class CountSketch:
    """The projection of a set of named parameters to `d` dimensions.

    State is one sign a parameter coordinate (as much memory as the parameters) and one offset a row.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        d: int,
        seed: int,
        *,
        stream: int = 0,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if d < 1:
            raise ShapeError(f"A sketch of {d} dimensions holds nothing; --sketch-dim must be at least 1.")
        self.d, self.seed, self.stream, self.device, self.dtype = d, seed, stream, device, dtype
        self.hashes = {name: self._hash(name, shape) for name, shape in shapes.items()}
        self.widest = max(h.signs.shape[1] for h in self.hashes.values())

    def _hash(self, name: str, shape: tuple[int, ...]) -> _Hash:
        rows, columns = matrix_shape(shape)
        key = key_of(name)
        coordinates = torch.arange(rows * columns).reshape(rows, columns)
        signs = 1 - 2 * (hash_words(self.seed, self.stream, key, _SIGN, coordinates) & 1)
        swapped = rows > columns  # fewer, longer windows: the loop over rows below is the cost
        signs = signs.T.contiguous() if swapped else signs
        offsets = (hash_words(self.seed, self.stream, key, _OFFSET, torch.arange(len(signs))) >> 1).remainder(self.d)
        return _Hash(signs.to(self.device, self.dtype), offsets.to(self.device), swapped)

    def is_swapped(self, name: str) -> bool:
        """Whether this parameter's matrix is read transposed: its columns are fewer than its rows."""
        return self.hashes[name].swapped

    def buffer(self, n_examples: int) -> SketchBuffer:
        """An empty accumulator for `n_examples` gradients."""
        return SketchBuffer(self, n_examples)

    def describe(self) -> dict[str, Any]:
        """JSON that identifies the projection, with a probe of its bits."""
        return {
            "name": "row-offset-count-sketch",
            "version": 1,
            "d": self.d,
            "seed": self.seed,
            "stream": self.stream,
            "probe": self.probe(),
        }

    def probe(self) -> str:
        """Fingerprint of signs and offsets: another projection under the same name is noticed."""
        words = torch.zeros((), dtype=torch.int64)
        for name, hashed in self.hashes.items():
            signs = (hashed.signs.T if hashed.swapped else hashed.signs).cpu().flatten().to(torch.int64)
            words = words + hash_words(key_of(name), torch.arange(len(signs)), signs).sum()
            words = words + hash_words(key_of(name), hashed.offsets.cpu()).sum()
        return f"{int(words) & (2**64 - 1):016x}"


class SketchBuffer:
    """Sums per-example gradients, given in pieces, into [n_examples, d] sketches.

    Windows run past d into a margin as wide as the longest row, folded back once at the end: no window is
    ever split in two.
    """

    def __init__(self, projection: CountSketch, n_examples: int) -> None:
        self._projection, self.device = projection, projection.device
        width = projection.d + projection.widest
        self._sums = torch.zeros(n_examples, width, device=projection.device, dtype=projection.dtype)

    def add_dense(
        self, name: str, grad: Float[Tensor, "example rows columns"], first: int = 0, *, swapped: bool = False
    ) -> Float[Tensor, " example"]:
        """Add full gradients of examples first, first + 1, …; returns their squared norms.

        Args:
            grad: matrices as `matrix_shape` has them; with `swapped` (only for a parameter that the projection reads
                so, `CountSketch.is_swapped`) their transposes, which saves a copy.
        """
        hashed = self._projection.hashes[name]
        grad = grad.mT if hashed.swapped and not swapped else grad
        return fold_dense(self._sums[first : first + len(grad)], hashed.offsets, hashed.signs, grad)

    def add_outer(
        self, name: str, left: Float[Tensor, "example rows"], right: Float[Tensor, "example columns"]
    ) -> None:
        """Add rank-one gradients left[b] right[b]^T without forming them."""
        hashed = self._projection.hashes[name]
        left, right = (right, left) if hashed.swapped else (left, right)
        fold_outer(self._sums, hashed.offsets, hashed.signs, left, right)

    def add_rows(
        self, name: str, index: Int[Tensor, "example position"], rows: Float[Tensor, "example position columns"]
    ) -> None:
        """Add gradients that are zero outside the matrix rows `index` (an embedding's)."""
        hashed = self._projection.hashes[name]
        signs = (hashed.signs.T if hashed.swapped else hashed.signs)[index]
        columns = torch.arange(rows.shape[2], device=index.device)
        offsets = hashed.offsets
        where = offsets[columns] + index[..., None] if hashed.swapped else offsets[index][..., None] + columns
        self._sums.scatter_add_(1, where.flatten(1), (rows * signs).flatten(1))

    def result(self) -> Float[Tensor, "example d"]:
        """The sketches."""
        d = self._projection.d
        margin = -self._sums.shape[1] % d
        return torch.nn.functional.pad(self._sums, (0, margin)).reshape(len(self._sums), -1, d).sum(1)
