"""Per-example gradients of parameters that no rule covers: `vmap(grad)`, or one example at a time.

Only those parameters are differentiated. Slower than a rule, and the coverage report says so.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from gradstore.gradients.capture import plain_evaluation
from gradstore.gradients.sink import GradientSink, example_chunks
from gradstore.sketch import matrix_shape
from gradstore.task import Batch, Noise, Task

Pieces = Iterator[tuple[int, list[dict[str, Tensor]]]]
"""The first example of a piece, and for every draw the full gradients [b, *parameter shape]."""


class _Loss(nn.Module):
    """`task.loss` as a module, so that `functional_call` swaps parameters wherever the loss reads the model."""

    def __init__(self, task: Task, model: nn.Module, seed: int) -> None:
        super().__init__()
        self.task, self.model, self.seed = task, model, seed

    def forward(self, inputs: Tensor, labels: Tensor | None, key: Tensor, draw: int) -> Tensor:
        batch = Batch(inputs[None], None if labels is None else labels[None], key[None])
        return draw_loss(self.task, self.model, batch, self.seed, draw)[0]


def draw_loss(task: Task, model: nn.Module, batch: Batch, seed: int, draw: int) -> Tensor:
    """[B] losses of one Monte Carlo draw."""
    return task.loss(model, batch, Noise(batch.keys, seed, draw))


def mean_loss(task: Task, model: nn.Module, batch: Batch, seed: int, n_draws: int) -> Tensor:
    """[B] losses averaged over the Monte Carlo draws."""
    draws = [draw_loss(task, model, batch, seed, draw) for draw in range(n_draws)]
    return draws[0] if n_draws == 1 else torch.stack(draws).mean(0)


def vmap_gradients(task: Task, model: nn.Module, names: Sequence[str], batch: Batch, seed: int, n_draws: int) -> Pieces:
    """Per-example gradients of `names`, a few megabytes of examples at a time.

    Raises:
        RuntimeError: the loss does something that vmap cannot (data-dependent control flow, an operator
            without a batching rule).
    """
    wrapped = _Loss(task, model, seed)
    tracked = {f"model.{name}": model.get_parameter(name).detach() for name in names}

    def loss(parameters: Mapping[str, Tensor], inputs: Tensor, labels: Tensor | None, key: Tensor, draw: int) -> Tensor:
        value: Tensor = functional_call(wrapped, dict(parameters), (inputs, labels, key, draw))
        return value

    per_example = vmap(grad(loss), in_dims=(None, 0, None if batch.labels is None else 0, 0, None))
    for rows in example_chunks(len(batch), n_draws * sum(4 * p.numel() for p in tracked.values())):
        part = batch[rows]
        with plain_evaluation(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*batching rule.*")  # the coverage report says what is slow
            draws = [per_example(tracked, part.inputs, part.labels, part.keys, draw) for draw in range(n_draws)]
        yield rows.start, [{name: grads[f"model.{name}"] for name in names} for grads in draws]


def loop_gradients(task: Task, model: nn.Module, names: Sequence[str], batch: Batch, seed: int, n_draws: int) -> Pieces:
    """The same by plain autograd, one example at a time: works wherever backward works."""
    tracked = [model.get_parameter(name) for name in names]
    for row in range(len(batch)):
        one = batch[row : row + 1]
        draws = []
        for draw in range(n_draws):
            with torch.enable_grad(), plain_evaluation():
                draws.append(_gradients(draw_loss(task, model, one, seed, draw).sum(), names, tracked))
        yield row, draws


def batch_gradients(
    task: Task, model: nn.Module, names: Sequence[str], batch: Batch, seed: int, n_draws: int
) -> Pieces:
    """The same by plain autograd from one forward pass over the batch: it rounds as the engine's own."""
    tracked = [model.get_parameter(name) for name in names]
    with torch.enable_grad(), plain_evaluation():
        losses = [draw_loss(task, model, batch, seed, draw) for draw in range(n_draws)]
        for row in range(len(batch)):
            yield row, [_gradients(of_draw[row], names, tracked, retain_graph=True) for of_draw in losses]


def _gradients(
    loss: Tensor, names: Sequence[str], tracked: Sequence[Tensor], *, retain_graph: bool = False
) -> dict[str, Tensor]:
    """Full gradients [1, *parameter shape] of one example's loss."""
    if not tracked:
        return {}
    grads = torch.autograd.grad(loss, tracked, retain_graph=retain_graph, allow_unused=True, materialize_grads=True)
    return {name: g.to_dense()[None] for name, g in zip(names, grads, strict=True)}


def emit(pieces: Pieces, sink: GradientSink, dtype: torch.dtype) -> None:
    """Hand full gradients to the sink as matrices."""
    for first, draws in pieces:
        for name in draws[0]:
            values = [_matrices(grads[name].detach().to(dtype)) for grads in draws]
            sink.add(name, first, [value.mT if sink.is_swapped(name) else value for value in values])


def _matrices(grads: Tensor) -> Tensor:
    return grads.reshape(len(grads), *matrix_shape(tuple(grads.shape[1:])))
