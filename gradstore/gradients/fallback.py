"""Per-example gradients of parameters that no rule covers: `vmap(grad)`, or one example at a time.

Only those parameters are differentiated. Slower than a rule, and the coverage report says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from gradstore.gradients.sink import GradientSink, example_chunks
from gradstore.sketch import matrix_shape
from gradstore.task import Batch, Noise, Task

Pieces = Iterator[tuple[slice, dict[str, Tensor]]]


class _Loss(nn.Module):
    """`task.loss` as a module, so that `functional_call` swaps parameters wherever the loss reads the model."""

    def __init__(self, task: Task, model: nn.Module, seed: int, n_draws: int) -> None:
        super().__init__()
        self.task, self.model, self.seed, self.n_draws = task, model, seed, n_draws

    def forward(self, inputs: Tensor, labels: Tensor | None, key: Tensor) -> Tensor:
        batch = Batch(inputs[None], None if labels is None else labels[None], key[None])
        return mean_loss(self.task, self.model, batch, self.seed, self.n_draws)[0]


def mean_loss(task: Task, model: nn.Module, batch: Batch, seed: int, n_draws: int) -> Tensor:
    """[B] losses averaged over the Monte Carlo draws."""
    draws = [task.loss(model, batch, Noise(batch.keys, seed, draw)) for draw in range(n_draws)]
    return draws[0] if n_draws == 1 else torch.stack(draws).mean(0)


def vmap_gradients(task: Task, model: nn.Module, names: Sequence[str], batch: Batch, seed: int, n_draws: int) -> Pieces:
    """Per-example gradients of `names`, a few megabytes of examples at a time.

    Raises:
        RuntimeError: the loss does something that vmap cannot (data-dependent control flow, an operator
            without a batching rule).
    """
    wrapped = _Loss(task, model, seed, n_draws)
    tracked = {f"model.{name}": model.get_parameter(name).detach() for name in names}

    def loss(parameters: Mapping[str, Tensor], inputs: Tensor, labels: Tensor | None, key: Tensor) -> Tensor:
        value: Tensor = functional_call(wrapped, dict(parameters), (inputs, labels, key))
        return value

    per_example = vmap(grad(loss), in_dims=(None, 0, None if batch.labels is None else 0, 0))
    for rows in example_chunks(len(batch), sum(4 * p.numel() for p in tracked.values())):
        part = batch[rows]
        grads = per_example(tracked, part.inputs, part.labels, part.keys)
        yield rows, {name: grads[f"model.{name}"] for name in names}


def loop_gradients(task: Task, model: nn.Module, names: Sequence[str], batch: Batch, seed: int, n_draws: int) -> Pieces:
    """The same by plain autograd, one example at a time: works wherever backward works."""
    tracked = [model.get_parameter(name) for name in names]
    for row in range(len(batch)):
        one = batch[row : row + 1]
        with torch.enable_grad():
            loss = mean_loss(task, model, one, seed, n_draws).sum()
        grads = torch.autograd.grad(loss, tracked, allow_unused=True, materialize_grads=True)
        yield slice(row, row + 1), {name: g.to_dense()[None] for name, g in zip(names, grads, strict=True)}


def emit(pieces: Pieces, sink: GradientSink, dtype: torch.dtype) -> None:
    """Hand full gradients to the sink as matrices."""
    for rows, grads in pieces:
        for name, value in grads.items():
            shape = matrix_shape(tuple(value.shape[1:]))
            sink.dense(name, value.detach().to(dtype).reshape(len(value), *shape), rows.start)
