"""Small tasks for tests: any module with a smooth readout, and the ways in which a task can be wrong."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gradstore.task import Batch, Noise, Task, example_keys


class ReadoutTask(Task):
    """Any module; the loss is a smooth function of its output, different at every coordinate."""

    encoder = "*"

    def __init__(self, factory: Callable[[], nn.Module], dtype: torch.dtype = torch.float32) -> None:
        self._factory, self._dtype = factory, dtype

    def build(self) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self._factory().to(self._dtype).eval()

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        output = model(batch.inputs).flatten(1)
        weights = torch.linspace(-1.0, 1.0, output.shape[1], dtype=output.dtype, device=output.device)
        return (torch.sin(output + weights) * (1.5 + weights)).sum(1)

    def latent(self, model: nn.Module, batch: Batch) -> Tensor:
        output: Tensor = model(batch.inputs).flatten(1)
        return output


def batch_of(inputs: Tensor, labels: Tensor | None = None) -> Batch:
    """A batch whose examples are called 0, 1, 2, …"""
    return Batch(inputs, labels, example_keys(str(row) for row in range(len(inputs))))


def autograd_gradients(task: Task, model: nn.Module, batch: Batch, seed: int = 0) -> dict[str, Tensor]:
    """The oracle: gradient of every parameter by plain autograd, one example at a time: [B, *shape]."""
    gradients: dict[str, list[Tensor]] = {name: [] for name, _ in model.named_parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    for row in range(len(batch)):
        one = batch[row : row + 1]
        model.zero_grad(set_to_none=True)
        torch.autograd.backward(task.loss(model, one, Noise(one.keys, seed)).sum())
        for name, parameter in model.named_parameters():
            grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.to_dense()
            gradients[name].append(grad.detach().clone())
    model.zero_grad(set_to_none=True)
    return {name: torch.stack(rows) for name, rows in gradients.items()}
