"""Where rules put what they find: squared norms per parameter, and the sketch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradstore.sketch import SketchBuffer

# Per-example gradients of one layer are formed at most this many bytes at a time.
_CHUNK_BYTES = 8 << 20


class GradientSink:
    """Collects the pieces of one batch's gradients: exact squared norms per parameter and one sketch."""

    def __init__(self, sketch: SketchBuffer, n_examples: int) -> None:
        self.sketch, self.n_examples = sketch, n_examples
        self.sq_norms: dict[str, Float[Tensor, " example"]] = {}

    def dense(self, name: str, grad: Float[Tensor, "example rows columns"], first: int = 0) -> None:
        """Full gradients of examples first, first + 1, …"""
        self.sketch.add_dense(name, grad, first)
        self._norms(name)[first : first + len(grad)] += _squares(grad)

    def outer(self, name: str, left: Float[Tensor, "example rows"], right: Float[Tensor, "example columns"]) -> None:
        """Rank-one gradients: |left right^T|^2 = |left|^2 |right|^2."""
        self.sketch.add_outer(name, left, right)
        self._norms(name).add_(_squares(left) * _squares(right))

    def rows(
        self, name: str, index: Int[Tensor, "example position"], rows: Float[Tensor, "example position columns"]
    ) -> None:
        """Gradients in some matrix rows; positions that share a row add up, so they meet in the norm."""
        self.sketch.add_rows(name, index, rows)
        same_row = index[:, :, None] == index[:, None, :]
        gram = torch.bmm(rows, rows.mT)
        self._norms(name).add_((gram * same_row).sum((1, 2), dtype=torch.float64))

    def total_sq_norms(self) -> Float[Tensor, " example"]:
        """[B] float64 squared norm over all tracked parameters."""
        return torch.stack(list(self.sq_norms.values())).sum(0)

    def _norms(self, name: str) -> Float[Tensor, " example"]:
        if name not in self.sq_norms:
            self.sq_norms[name] = torch.zeros(self.n_examples, dtype=torch.float64, device=self.sketch.device)
        return self.sq_norms[name]


def _squares(values: Float[Tensor, "example ..."]) -> Float[Tensor, " example"]:
    norms: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return norms.to(torch.float64).square()


def example_chunks(n_examples: int, bytes_each: int) -> Iterator[slice]:
    """Slices over the examples that keep a layer's full gradients within a few megabytes."""
    step = max(1, _CHUNK_BYTES // max(bytes_each, 1))
    for start in range(0, n_examples, step):
        yield slice(start, min(start + step, n_examples))
