"""A small user Task: a linear autoencoder with noise, for builds that take a second."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradstore.task import Batch, Noise, Task


class Toy(Task):
    def build(self) -> nn.Module:
        return nn.ModuleDict({"encoder": nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), "decoder": nn.Linear(5, 64)})

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        assert isinstance(model, nn.ModuleDict)
        latent = model["encoder"](batch.inputs) + 0.1 * noise.normal(5)
        error: Tensor = model["decoder"](torch.tanh(latent)) - batch.inputs.flatten(1)
        return error.square().sum(1)

    def latent(self, model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, nn.ModuleDict)
        latent: Tensor = model["encoder"](batch.inputs)
        return latent
