"""What a rule is given and what it hands over."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from gradstore.gradients.capture import Operation
from gradstore.gradients.forms import Form
from gradstore.gradients.layout import examples_first

Found = Iterator[tuple[Tensor, Form]]
"""Known tensors (parameters, or tensors derived from them) and their per-example gradients."""

Rule = Callable[..., Found]
"""`rule(call, *args, **kwargs)`: the arguments are the operation's own, so that a rule has its signature."""


class NoRuleError(Exception):
    """No rule covers this way of using an operation; its parameters take the fallback."""

    sources: Sequence[str] = ()
    """The parameters."""


@dataclass(frozen=True)
class Call:
    """One executed operation: the examples' layout, and the gradient of the losses at its outputs."""

    operation: Operation
    grads: tuple[Tensor | None, ...]
    n_examples: int
    dtype: torch.dtype

    def wants(self, tensor: Tensor | None) -> bool:
        """Is this one of the tensors whose gradient is asked for?"""
        return any(known.tensor is tensor for known in self.operation.known)

    @functools.cached_property
    def grad(self) -> Tensor:
        """Gradient at the only (or first) output, examples first, in the working precision."""
        first = self.grads[0]
        if first is None:
            raise NoRuleError("no gradient reaches its first output")
        return self.examples_first(first)

    @property
    def delta(self) -> Float[Tensor, "example position width"]:
        """The same with everything between the examples and the last axis flattened into positions."""
        return self.grad.reshape(self.n_examples, -1, self.grad.shape[-1])

    def examples_first(self, values: Tensor) -> Float[Tensor, "example ..."]:
        """Values of the layout of the operation's output, examples first, in the working precision."""
        try:
            values = examples_first(self.operation.layout, values, self.n_examples)
        except ValueError as error:
            raise NoRuleError(str(error)) from error
        return values.to(self.dtype) if values.is_floating_point() else values

    def positions(self, values: Tensor) -> Float[Tensor, "example position width"]:
        """An input like the output: examples first, everything before the last axis flattened into positions."""
        first = self.examples_first(values)
        return first.reshape(self.n_examples, -1, first.shape[-1])

    def require_rows(self, values: Tensor, dim: int) -> None:
        """Refuse an input that is not [example, …] with `dim` axes.

        Raises:
            NoRuleError: the examples lie elsewhere, or several rows belong to one.
        """
        if self.operation.layout.axis != 0 or values.dim() != dim or len(values) != self.n_examples:
            raise NoRuleError("it is called without an axis of examples in front, or with several rows an example")
