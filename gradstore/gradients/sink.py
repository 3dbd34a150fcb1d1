"""Where per-example gradients end: exact squared norms by parameter, and sketches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gradstore.gradients.forms import Form, Product, Rows
from gradstore.sketch import CountSketch, SketchBuffer

# Per-example gradients of one parameter are formed at most this many bytes at a time.
_CHUNK_BYTES = 1 << 20

# Rank-one gradients of so many draws are folded one by one; of more, their sum is formed first.
_FEW_DRAWS = 8

Group = tuple[str, ...]
"""The names of the sets that hold a parameter. Parameters of one group share a sketch; a set's is the sum of its
groups'."""


class GradientSink:
    """Collects the gradients of one batch, parameter by parameter, averaged over the Monte Carlo draws."""

    def __init__(
        self, projection: CountSketch, groups: Mapping[str, Group], n_examples: int, *, n_draws: int = 1
    ) -> None:
        """`groups`: for every tracked parameter the sets that it is in."""
        self.n_examples, self.n_draws = n_examples, n_draws
        self._projection, self._groups = projection, groups
        self._sketches = {group: projection.buffer(n_examples) for group in dict.fromkeys(groups.values())}
        self.sq_norms = {name: self._zeros() for name in groups}
        self.draw_sq_norms = {name: self._zeros() for name in groups} if n_draws > 1 else self.sq_norms
        """Mean over the draws of each draw's squared norm."""

    def take(self, name: str, draws: Sequence[Sequence[Form]]) -> None:
        """The gradient of one parameter: for each draw the forms whose sum it is; none where it was not read."""
        draws = [forms for forms in draws if forms]
        if all(isinstance(form, Product) for forms in draws for form in forms):
            self._products(name, [Product.joined([f for f in forms if isinstance(f, Product)]) for forms in draws])
        elif len(draws) == 1 and len(draws[0]) == 1 and isinstance(draws[0][0], Rows):
            self._rows(name, draws[0][0])
        else:
            self._formed(name, draws)

    def add(self, name: str, first: int, draws: Sequence[Float[Tensor, "example row column"]]) -> None:
        """Formed gradients of examples first, first + 1, …, one tensor a draw, oriented as the projection has them."""
        examples = slice(first, first + len(draws[0]))
        if self.n_draws > 1:
            self.draw_sq_norms[name][examples] += sum(_squares(grad) for grad in draws) / self.n_draws
        mean = sum_of(draws) / self.n_draws if self.n_draws > 1 else draws[0]
        self.sq_norms[name][examples] += self._sketch(name).add_dense(name, mean, first, swapped=self.is_swapped(name))

    def is_swapped(self, name: str) -> bool:
        """Whether the projection wants this parameter's matrix transposed."""
        return self._projection.is_swapped(name)

    def sketch(self, chosen: str) -> Float[Tensor, "example d_sketch"]:
        """The sketch of a set's gradients."""
        return sum_of([buffer.result() for group, buffer in self._sketches.items() if chosen in group])

    def whole_sketch(self) -> Float[Tensor, "example d_sketch"]:
        """The sketch of the gradients with respect to all tracked parameters."""
        return sum_of([buffer.result() for buffer in self._sketches.values()])

    def total_sq_norms(self, names: Sequence[str] | None = None) -> Float[Tensor, " example"]:
        """[B] float64 squared norm over some, or all, tracked parameters."""
        return torch.stack([self.sq_norms[name] for name in (names or self.sq_norms)]).sum(0)

    def _products(self, name: str, products: Sequence[Product]) -> None:
        """Rank-one gradients are not formed; nor are sums of a few of them, whose norm is that of their Gram matrix."""
        if any(product.left.shape[2] > 1 for product in products) or len(products) > _FEW_DRAWS:
            self._formed(name, [[product] for product in products])
            return
        lefts = [product.left[:, :, 0] for product in products]
        rights = [product.right[:, 0] for product in products]
        if self.n_draws > 1:
            lefts = [left / self.n_draws for left in lefts]
        for left, right in zip(lefts, rights, strict=True):
            self._sketch(name).add_outer(name, left, right)
        if self.n_draws == 1:
            self.sq_norms[name] += _squares(lefts[0]) * _squares(rights[0])
        else:
            gram = _gram(lefts) * _gram(rights)
            self.sq_norms[name] += gram.sum((1, 2))
            self.draw_sq_norms[name] += gram.diagonal(dim1=1, dim2=2).sum(1) * self.n_draws

    def _rows(self, name: str, form: Rows) -> None:
        """Positions that share a row add up, so they meet in the norm."""
        self._sketch(name).add_rows(name, form.index, form.rows)
        same_row = form.index[:, :, None] == form.index[:, None, :]
        gram = torch.bmm(form.rows, form.rows.mT)
        self.sq_norms[name] += (gram * same_row).sum((1, 2), dtype=torch.float64)

    def _formed(self, name: str, draws: Sequence[Sequence[Form]]) -> None:
        swapped = self.is_swapped(name)
        bytes_each = sum(max(form.bytes_each for form in forms) for forms in draws)
        for examples in example_chunks(self.n_examples, bytes_each):
            self.add(
                name,
                examples.start,
                [sum_of([form.matrices(examples, swapped=swapped) for form in forms]) for forms in draws],
            )

    def _sketch(self, name: str) -> SketchBuffer:
        return self._sketches[self._groups[name]]

    def _zeros(self) -> Float[Tensor, " example"]:
        return torch.zeros(self.n_examples, dtype=torch.float64, device=self._projection.device)


def sum_of(parts: Sequence[Tensor]) -> Tensor:
    """Their sum in the order given; a single one is not copied."""
    if len(parts) == 1:
        return parts[0]
    total = parts[0] + parts[1]
    for part in parts[2:]:
        total += part
    return total


def _gram(vectors: Sequence[Float[Tensor, "example value"]]) -> Float[Tensor, "example draw draw"]:
    """Dot products of each example's vectors with one another, in float64: draws may nearly cancel."""
    stacked = torch.stack(list(vectors), dim=1).double()
    return torch.bmm(stacked, stacked.mT)


def _squares(values: Float[Tensor, "example ..."]) -> Float[Tensor, " example"]:
    norms: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return norms.to(torch.float64).square()


def example_chunks(n_examples: int, bytes_each: int) -> Iterator[slice]:
    """Slices over the examples that keep a parameter's formed gradients within a few megabytes."""
    step = max(1, _CHUNK_BYTES // max(bytes_each, 1))
    for start in range(0, n_examples, step):
        yield slice(start, min(start + step, n_examples))
