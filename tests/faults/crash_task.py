"""A small model that writes down every shard that it begins, so that work done twice can be counted."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor, nn

from gradstore.task import Batch, Noise, Task

LOG = "GRADSTORE_CRASH_LOG"
"""Names the file to which a line `key of the first example` is appended for every block."""


class Crashing(Task):
    def build(self) -> nn.Module:
        return nn.ModuleDict({"encoder": nn.Sequential(nn.Flatten(), nn.Linear(64, 24)), "decoder": nn.Linear(24, 64)})

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        assert isinstance(model, nn.ModuleDict)
        if LOG in os.environ and not model.training:
            with Path(os.environ[LOG]).open("a") as log:
                log.write(f"{int(batch.keys[0])} {len(batch)}\n")  # one write: builders append side by side
        latent = model["encoder"](batch.inputs) + 0.1 * noise.normal(24)
        error: Tensor = model["decoder"](torch.tanh(latent)) - batch.inputs.flatten(1)
        return error.square().sum(1)

    def latent(self, model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, nn.ModuleDict)
        latent: Tensor = model["encoder"](batch.inputs)
        return latent
