"""Capture: what went into each tracked module, and the gradient that came back to its output.

Gradient edges instead of output tensors: an in-place operation after the module (`ReLU(inplace=True)`) would
make the tensor mean something else, the edge stays where the module ended. `autograd.grad` to those edges
alone forms no weight gradient and stops at the first tracked output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge


@dataclass(frozen=True)
class Call:
    """One call of a module: its input and the gradient of the summed losses with respect to its output."""

    input: Tensor
    grad: Tensor


@dataclass(frozen=True)
class _Recorded:
    module: nn.Module
    input: Tensor
    version: int
    edge: GradientEdge


def capture(
    modules: Sequence[nn.Module],
    forward: Callable[[], Float[Tensor, " example"]],
    check: Callable[[Tensor], None],
) -> tuple[Float[Tensor, " example"], dict[nn.Module, list[Call]]]:
    """Run `forward` (losses), then backward to the outputs of `modules`.

    Args:
        modules: the tracked modules; one called several times gets several `Call`s, one never called gets none.
        forward: evaluates the losses; runs once, hooks in place.
        check: sees the losses before the backward pass and raises if they are not what a Task owes.

    Returns:
        The detached losses, and the calls of each module in calling order.
    """
    recorded: list[_Recorded] = []
    handles = [m.register_forward_hook(_recorder(recorded), with_kwargs=True) for m in modules]
    try:
        with torch.enable_grad():
            losses = forward()
    finally:
        for handle in handles:
            handle.remove()
    check(losses)
    calls: dict[nn.Module, list[Call]] = {module: [] for module in modules}
    if recorded and losses.requires_grad:
        grads = torch.autograd.grad(losses.sum(), [r.edge for r in recorded], allow_unused=True)
        for record, grad in zip(recorded, grads, strict=True):
            if grad is not None:
                calls[record.module].append(Call(_unchanged(record), grad))
    return losses.detach(), calls


def _recorder(into: list[_Recorded]) -> Callable[..., None]:
    def record(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> None:
        value = args[0] if args else next(iter(kwargs.values()), None)
        if isinstance(output, Tensor) and isinstance(value, Tensor) and output.requires_grad:
            into.append(_Recorded(module, value.detach(), value._version, get_gradient_edge(output)))

    return record


def _unchanged(record: _Recorded) -> Tensor:
    if record.input._version != record.version:
        raise InputChangedError(record.module)
    return record.input


class InputChangedError(RuntimeError):
    """An in-place operation overwrote the captured input of `module` before the backward pass."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(f"the input of {type(module).__name__} is changed in place after it was read")
        self.module = module
