"""A model so small that what is measured is the pipeline: an autoencoder of 16 numbers, 4 inside."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradstore.task import Batch, Noise, Task


class Tiny(Task):
    def build(self) -> nn.Module:
        return nn.ModuleDict({"encoder": nn.Linear(16, 4), "decoder": nn.Linear(4, 16)})

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        assert isinstance(model, nn.ModuleDict)
        error: Tensor = model["decoder"](torch.tanh(model["encoder"](batch.inputs))) - batch.inputs
        return error.square().sum(1)

    def latent(self, model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, nn.ModuleDict)
        latent: Tensor = model["encoder"](batch.inputs)
        return latent
