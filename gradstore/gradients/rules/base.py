"""What a rule is given and what it hands over."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gradstore.gradients.capture import Call
from gradstore.gradients.sink import GradientSink, example_chunks
from gradstore.sketch import matrix_shape


class NoRuleError(Exception):
    """The rule does not cover this way of using the layer; `parameters` take the fallback."""

    parameters: Sequence[str] = ()


class Rule(Protocol):
    """From the calls of a module to the gradients of its own parameters."""

    def __call__(self, module: Any, calls: Sequence[Call], emit: Emit) -> None: ...


class Emit:
    """Receives the gradients of one module's parameters: `names` maps local to full names of the wanted ones."""

    def __init__(self, names: dict[str, str], sink: GradientSink, dtype: torch.dtype) -> None:
        self._names, self._sink, self._dtype = names, sink, dtype
        self.n_examples = sink.n_examples

    @property
    def full_names(self) -> Sequence[str]:
        """The wanted parameters, as the model calls them."""
        return list(self._names.values())

    def wants(self, local: str) -> bool:
        """Is this parameter tracked, and is it this module's to report?"""
        return local in self._names

    def per_example(self, values: Tensor) -> Tensor:
        """Values in the working precision with the examples on the first axis.

        A model may flatten [B, T, …] to [B * T, …] before a layer: T is split off again. (Were the axes the other
        way round, the probe would notice and send the parameter to the fallback.)
        """
        if values.dim() == 0 or len(values) % self.n_examples:
            raise NoRuleError("its input has no axis of examples in front")
        values = values if not values.is_floating_point() else values.to(self._dtype)
        if len(values) == self.n_examples:
            return values
        return values.reshape(self.n_examples, -1, *values.shape[1:])

    def vector(self, local: str, grad: Float[Tensor, "example ..."]) -> None:
        """The whole gradient of a parameter that is small: [B, *parameter shape]."""
        rows, columns = matrix_shape(tuple(grad.shape[1:]))
        self._sink.dense(self._names[local], grad.reshape(len(grad), rows, columns))

    def chunk(self, local: str, grad: Float[Tensor, "example rows columns"], first: int) -> None:
        """Whole gradients of examples first, first + 1, …, as matrices."""
        self._sink.dense(self._names[local], grad, first)

    def product(
        self, local: str, left: Float[Tensor, "example rows position"], right: Float[Tensor, "example position columns"]
    ) -> None:
        """Gradients that are matrix products left[b] right[b], formed a few megabytes at a time."""
        name = self._names[local]
        if left.shape[2] == 1:
            self._sink.outer(name, left[:, :, 0], right[:, 0])
            return
        bytes_each = left.shape[1] * right.shape[2] * left.element_size()
        for chunk in example_chunks(len(left), bytes_each):
            self._sink.dense(name, torch.bmm(left[chunk], right[chunk]), chunk.start)

    def rows(
        self, local: str, index: Int[Tensor, "example position"], rows: Float[Tensor, "example position columns"]
    ) -> None:
        """Gradients that are zero outside some matrix rows."""
        self._sink.rows(self._names[local], index, rows)


def joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """The calls of a module side by side; one call, the usual case, is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)


def total(parts: Sequence[Tensor]) -> Tensor:
    """Sum over the calls of a module, in calling order."""
    return functools.reduce(torch.add, parts)
