"""Forms: what a rule says about one parameter's per-example gradients, before they are formed.

A gradient is read as a matrix (`gradstore.sketch.matrix_shape`). Most are sums of outer products over positions, some
are mostly zero, some are small; the sink forms them a few megabytes at a time, or not at all where the squared norm
and the sketch follow from the factors.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradstore.sketch import matrix_shape


class Form(ABC):
    """Per-example gradients of one parameter."""

    @property
    @abstractmethod
    def bytes_each(self) -> int:
        """Memory that forming one example takes."""

    @abstractmethod
    def matrices(self, examples: slice, *, swapped: bool = False) -> Float[Tensor, "example row column"]:
        """The gradients of some examples as matrices; `swapped`: columns first, as the projection may want them."""


@dataclass(frozen=True)
class Product(Form):
    """Sum over positions of outer products: left[b] right[b]."""

    left: Float[Tensor, "example row position"]
    right: Float[Tensor, "example position column"]

    @property
    def bytes_each(self) -> int:
        return self.left.shape[1] * self.right.shape[2] * self.left.element_size()

    def matrices(self, examples: slice, *, swapped: bool = False) -> Float[Tensor, "example row column"]:
        left, right = self.left[examples], self.right[examples]
        return torch.bmm(right.mT, left.mT) if swapped else torch.bmm(left, right)

    @classmethod
    def joined(cls, products: Sequence[Product]) -> Product:
        """The sum of several: their positions one after another."""
        if len(products) == 1:
            return products[0]
        return cls(torch.cat([p.left for p in products], dim=2), torch.cat([p.right for p in products], dim=1))


@dataclass(frozen=True)
class Dense(Form):
    """The gradients themselves, of a parameter that is small: [B, *parameter shape]."""

    values: Float[Tensor, "example ..."]

    @property
    def bytes_each(self) -> int:
        return math.prod(self.values.shape[1:]) * self.values.element_size()

    def matrices(self, examples: slice, *, swapped: bool = False) -> Float[Tensor, "example row column"]:
        rows, columns = matrix_shape(tuple(self.values.shape[1:]))
        values = self.values[examples].reshape(-1, rows, columns)
        return values.mT if swapped else values


@dataclass(frozen=True)
class Formed(Form):
    """Gradients that `form(examples)` makes as matrices, or, with `swapped`, as their transposes."""

    form: Callable[[slice, bool], Float[Tensor, "example row column"]]
    n_bytes: int

    @property
    def bytes_each(self) -> int:
        return self.n_bytes

    def matrices(self, examples: slice, *, swapped: bool = False) -> Float[Tensor, "example row column"]:
        return self.form(examples, swapped)


@dataclass(frozen=True)
class Rows(Form):
    """Gradients that are zero outside some matrix rows; positions that name the same row add up."""

    index: Int[Tensor, "example position"]
    rows: Float[Tensor, "example position column"]
    n_rows: int

    @property
    def bytes_each(self) -> int:
        return self.n_rows * self.rows.shape[2] * self.rows.element_size()

    def matrices(self, examples: slice, *, swapped: bool = False) -> Float[Tensor, "example row column"]:
        index, rows = self.index[examples], self.rows[examples]
        values = rows.new_zeros(len(rows), self.n_rows, rows.shape[2])
        values.scatter_add_(1, index[..., None].expand_as(rows), rows)
        return values.mT if swapped else values
