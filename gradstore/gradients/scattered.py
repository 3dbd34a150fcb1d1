"""Tensors whose rows are chosen by value: no layout says which example a row belongs to.

`hidden[is_masked]` has as many rows as there are masked tokens, a packed sequence as many as there are steps. A
number of rows that happens to be a multiple of the batch size would be taken for examples in their order, and nobody
would notice: so these tensors are followed through the model, and an operation that reads one together with a tracked
parameter has no rule. Following ends where their rows are written back into a tensor of examples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

_SELECTING = {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "_pack_padded_sequence"}
_PERHAPS_SELECTING = _SELECTING | {"__getitem__", "index_select", "where"}
_RESTORING = {"_pad_packed_sequence"}
_WRITING = {"index_add", "index_copy", "index_put", "index_fill", "masked_scatter", "scatter", "scatter_add"}
"""Their result lies as their first argument does, and so does that of `a[index] = b`."""


class Scattered:
    """Follows such tensors through one forward pass."""

    def __init__(self) -> None:
        self._found: dict[int, Tensor] = {}

    def follow(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        """Take note of an executed operation."""
        if name not in _PERHAPS_SELECTING and (not self._found or name in _RESTORING):
            return
        written = name.removesuffix("_") in _WRITING or name == "__setitem__"
        if self.holds(args[:1] if written else (*args, *kwargs.values())) or _selects(name, args, kwargs):
            self._found.update((id(tensor), tensor) for tensor in tensors_in([args[0] if written else output]))

    def holds(self, values: Iterable[Any]) -> bool:
        """Is any of these tensors one?"""
        return bool(self._found) and any(id(tensor) in self._found for tensor in tensors_in(values))


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among arguments, also those in lists and tuples."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from tensors_in(value)


def _selects(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    if name == "__getitem__":
        source, index = args
        return _reorders(source, index) or any(i.dtype in (torch.bool, torch.uint8) for i in tensors_in([index]))
    if name == "index_select":
        named = {**dict(zip(("input", "dim", "index"), args, strict=False)), **kwargs}
        return named["dim"] == 0 and _reorders(named["input"], named["index"])
    return name in _SELECTING or (name == "where" and len(args) + len(kwargs) == 1)


def _reorders(source: Tensor, index: object) -> bool:
    """As many rows as before: a batch sorted by the length of its examples."""
    return isinstance(index, Tensor) and index.dim() == 1 and source.dim() > 0 and len(index) == len(source)
