"""Which examples a training step sees, and after which steps a checkpoint is taken: pure arithmetic of the seed.

Why this is apart from the loop: a killed training goes on from a step number alone, because nothing here has a
state. Batches of an epoch differ by at most one example, so no leftover of one example meets a BatchNorm, and
every example has the same weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int

from gradstore.errors import TaskError
from gradstore.sketch.counter import key_of


@dataclass(frozen=True)
class Step:
    """One training step, numbered from 1; epochs from 1 as well."""

    number: int
    epoch: int
    rows: Int[np.ndarray, " row"]


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Steps of a training, and where among them its checkpoints lie."""

    n_examples: int
    batch_size: int
    epochs: int
    n_checkpoints: int
    seed: int

    def __post_init__(self) -> None:
        if self.n_checkpoints > self.n_steps:
            raise TaskError(
                f"{self.n_checkpoints} checkpoints do not fit into {self.n_steps} training steps "
                f"({self.n_examples} examples, {self.epochs} epochs, batches of {self.batch_size}). "
                "Ask for fewer checkpoints, more epochs or smaller batches."
            )

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.n_examples // self.batch_size)

    @property
    def n_steps(self) -> int:
        return self.epochs * self.steps_per_epoch

    @property
    def checkpoint_steps(self) -> list[int]:
        """Checkpoint i of n after (i/n)^1.5 of the training: the first when there is something to see, the last at
        the end, and denser early on.

        Why early: a model that has nearly learned its outliers no longer betrays them. Measured on Fashion-MNIST with
        80 planted among 4,000, ROC-AUC of the combined score for rotated, foreign, noise: evenly spaced over 20 epochs
        .84, .91, .98; with checkpoints after 1, 3, 6, 10 and 15 epochs .84, .94, .99.
        """
        share = ((i / self.n_checkpoints) ** 1.5 for i in range(1, self.n_checkpoints + 1))
        return [max(i, int(self.n_steps * part)) for i, part in enumerate(share, start=1)]

    def steps(self, done: int = 0) -> Iterator[Step]:
        """The steps that follow the first `done`."""
        for epoch in range(done // self.steps_per_epoch, self.epochs):
            order = self._order(epoch)
            for index in range(max(done - epoch * self.steps_per_epoch, 0), self.steps_per_epoch):
                yield Step(epoch * self.steps_per_epoch + index + 1, epoch + 1, self._rows(order, index))

    def _order(self, epoch: int) -> Int[np.ndarray, " example"]:
        """A shuffling of all examples: 8 bytes an example, the one thing here that grows with the data."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", epoch))
        return torch.randperm(self.n_examples, generator=generator).numpy()

    def _rows(self, order: Int[np.ndarray, " example"], index: int) -> Int[np.ndarray, " row"]:
        """Sorted, because files are read faster in order."""
        start, stop = (self.n_examples * i // self.steps_per_epoch for i in (index, index + 1))
        return np.sort(order[start:stop])


def derived_seed(seed: int, purpose: str, number: int = 0) -> int:
    """64 bits for one purpose: streams of different purposes and numbers are unrelated."""
    return key_of(f"{seed}/{purpose}/{number}")
