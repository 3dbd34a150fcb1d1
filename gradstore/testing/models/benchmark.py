"""Benchmark: a task with inputs made for it, and which of its parameters are tracked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradstore.task import Batch, Task, example_keys
from gradstore.testing.models import inputs
from gradstore.testing.models.convolutional import ConvAutoencoder, ConvVAE
from gradstore.testing.models.resnet import ResNet18
from gradstore.testing.models.sequences import N_STEPS, N_TOKENS, VOCABULARY, LSTMAutoencoder, TokenTransformer

Draw = Callable[[int, torch.Generator], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One row of the speed table."""

    name: str
    "Short, for a command line."
    title: str
    "What a table calls it."
    task: Task
    "Model and loss."
    parameters: str
    "The tracked parameters: `encoder` or `all`, see `gradstore.task.tracked_parameters`."
    draw: Draw
    "From a number of examples and a generator to inputs [n, …] and labels [n], or None."

    def inputs(self, n: int, seed: int) -> Batch:
        """`n` examples, the same whenever `n` and `seed` are the same; they are called 0, 1, 2, …"""
        values, labels = self.draw(n, torch.Generator().manual_seed(seed))
        return Batch(values, labels, example_keys(str(row) for row in range(n)))

    def model(self, seed: int = 0) -> nn.Module:
        """A new model in eval mode whose weights depend on `seed` alone; torch's own generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.task.build().eval()


BENCHMARKS: tuple[Benchmark, ...] = (
    Benchmark(
        name="ae",
        title="small conv autoencoder",
        task=ConvAutoencoder(),
        parameters="encoder",
        draw=lambda n, random: (inputs.blobs(n, 28, random), None),
    ),
    Benchmark(
        name="vae",
        title="conv VAE",
        task=ConvVAE(),
        parameters="encoder",
        draw=lambda n, random: (inputs.blobs(n, 32, random), None),
    ),
    Benchmark(
        name="lstm",
        title="LSTM autoencoder",
        task=LSTMAutoencoder(),
        parameters="encoder",
        draw=lambda n, random: (inputs.sines(n, N_STEPS, random), None),
    ),
    Benchmark(
        name="transformer",
        title="transformer encoder",
        task=TokenTransformer(),
        parameters="all",
        draw=lambda n, random: (inputs.tokens(n, N_TOKENS, VOCABULARY, random), None),
    ),
    Benchmark(
        name="resnet",
        title="ResNet-18",
        task=ResNet18(),
        parameters="all",
        draw=lambda n, random: inputs.coloured_blobs(n, 32, random),
    ),
)
