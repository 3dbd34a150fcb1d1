"""Where the examples lie in a tensor.

A model may put them on any axis (`[T, B, d]`), or flatten them with another one, outside (`[B * T, d]`) or inside
(`[T * B, d]`, as multi-head attention does). That is found once, by running a forward pass with a number of examples
that divides no size of the model, so that the axis which is a multiple of it can only be the examples'.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradstore.gradients.coverage import Layout
from gradstore.task import Batch


def examples_first(layout: Layout, values: Float[Tensor, "..."], n_examples: int) -> Float[Tensor, "example ..."]:
    """`values` with the examples on the first axis; what they were flattened with follows.

    Raises:
        ValueError: the axis does not hold a multiple of `n_examples`.
    """
    axis = layout.axis
    if axis >= values.dim() or values.shape[axis] % n_examples:
        raise ValueError(f"axis {axis} of {tuple(values.shape)} does not hold {n_examples} examples")
    if values.shape[axis] == n_examples:
        return values.movedim(axis, 0)
    sizes = (-1, n_examples) if layout.inner else (n_examples, -1)
    split = values.reshape(*values.shape[:axis], *sizes, *values.shape[axis + 1 :])
    return split.movedim(axis + 1 if layout.inner else axis, 0)


def find_layout(values: Tensor, n_examples: int, period: int, witnesses: Sequence[Tensor] = ()) -> Layout | None:
    """The layout of a tensor made from examples that repeat every `period`; None where none of its axes is theirs.

    Args:
        witnesses: what the tensor was made from. Axes of the same size tell layouts apart when the tensor itself is
            constant (a layer that starts from zeros).
    """
    own = [Layout(axis) for axis, size in enumerate(values.shape) if size == n_examples]
    shared = [axis for axis, size in enumerate(values.shape) if size > n_examples and size % n_examples == 0]
    layouts = [*own, *(Layout(axis, inner) for axis in shared for inner in (False, True))]
    fitting = [layout for layout in layouts if _repeats(layout, values, n_examples, period)]

    def confirmed(layout: Layout) -> bool:
        like = [w for w in witnesses if w.dim() > layout.axis and w.shape[layout.axis] == values.shape[layout.axis]]
        return all(_repeats(layout, witness, n_examples, period) for witness in like)

    return next(filter(confirmed, fitting), fitting[0] if fitting else None)


def common_layout(first: Layout | None, second: Layout | None) -> Layout | None:
    """One for two calls of an operation: [example, …] and [view * example, …] are both the latter. Else the first."""
    if first is None or second is None or first.axis != second.axis:
        return first
    return second if second.inner else first


def _repeats(layout: Layout, values: Tensor, n_examples: int, period: int) -> bool:
    eps = torch.finfo(values.dtype).eps if values.is_floating_point() else 1e-7
    found = examples_first(layout, values.detach().double(), n_examples)
    later, earlier = found[period:], found[: n_examples - period]
    tolerance = 4 * math.sqrt(eps)  # a batch's rounding stays below, another example lies above
    scale = float(found.abs().mean())
    return torch.allclose(later, earlier, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


def telling_batch(model: nn.Module, batch: Batch) -> tuple[Batch, int]:
    """A batch of so many examples, repeating those of `batch`, that their axis shows; and the period."""
    sizes = {size for tensor in [*model.parameters(), *model.buffers()] for size in tensor.shape}
    n_examples = _prime_beside(sizes | set(batch.inputs.shape[1:]), len(batch) + 1)
    index = torch.arange(n_examples, device=batch.keys.device) % len(batch)
    labels = None if batch.labels is None else batch.labels[index]
    return Batch(batch.inputs[index], labels, batch.keys[index]), len(batch)


def _prime_beside(sizes: Iterable[int], at_least: int) -> int:
    """The smallest prime from 11 (and `at_least`) on that divides none of `sizes`."""
    product = math.prod({size for size in sizes if size > 0})
    candidate = max(11, at_least)
    while any(candidate % d == 0 for d in range(2, math.isqrt(candidate) + 1)) or product % candidate == 0:
        candidate += 1
    return candidate
