"""A user Task for texts of eight tokens: which tokens are there, from the mean of their embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradstore.task import Batch, Noise, Task

N_TOKENS = 12


class Bag(Task):
    def build(self) -> nn.Module:
        return nn.ModuleDict({"encoder": nn.Embedding(N_TOKENS, 4), "decoder": nn.Linear(4, N_TOKENS)})

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        assert isinstance(model, nn.ModuleDict)
        logits = model["decoder"](self.latent(model, batch))
        counts = torch.zeros_like(logits).scatter_add(
            1, batch.inputs, torch.ones_like(batch.inputs, dtype=logits.dtype)
        )
        return -(counts * torch.log_softmax(logits, dim=1)).sum(1)

    def latent(self, model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, nn.ModuleDict)
        latent: Tensor = model["encoder"](batch.inputs).mean(1)
        return latent
