"""The two sequence models: an LSTM autoencoder and a masked-token transformer.

Sources: Malhotra et al. 2016 (LSTM encoder-decoder), arXiv:1607.00148; Vaswani et al. 2017, arXiv:1706.03762, and
Devlin et al. 2018 (masked tokens), arXiv:1810.04805.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from gradstore.task import Batch, Noise, Task

N_STEPS = 140
N_TOKENS, VOCABULARY = 64, 64
_HIDDEN, _D_MODEL = 64, 256
_MASK, _MASKED_SHARE = VOCABULARY, 0.15


class LSTMAutoencoder(Task):
    """A series of 140 steps to the last hidden state and back: loss = mean squared error over the steps."""

    def build(self) -> LSTMAutoencoderModel:
        return LSTMAutoencoderModel()

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Float[Tensor, " example"]:
        errors: Tensor = model(batch.inputs) - batch.inputs
        return errors.square().flatten(1).mean(1)

    def latent(self, model: nn.Module, batch: Batch) -> Float[Tensor, "example d_latent"]:
        return cast(LSTMAutoencoderModel, model).encoded(batch.inputs)


class LSTMAutoencoderModel(nn.Module):
    """The decoder reads the encoder's last hidden state at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(1, _HIDDEN, num_layers=2, batch_first=True)
        self.decoder = nn.LSTM(_HIDDEN, _HIDDEN, num_layers=2, batch_first=True)
        self.head = nn.Linear(_HIDDEN, 1)

    def forward(self, series: Float[Tensor, "example step 1"]) -> Float[Tensor, "example step 1"]:
        repeated = self.encoded(series)[:, None].expand(-1, series.shape[1], -1)
        outputs: Tensor = self.head(self.decoder(repeated)[0])
        return outputs

    def encoded(self, series: Float[Tensor, "example step 1"]) -> Float[Tensor, "example hidden"]:
        """The last layer's last hidden state."""
        _, (hidden, _) = self.encoder(series)
        last: Tensor = hidden[-1]
        return last


class TokenTransformer(Task):
    """Predict hidden tokens from the others: loss = sum of cross-entropies over masked positions, in nats.

    Which 15 % of the positions are masked is drawn from `noise`.
    """

    def build(self) -> TokenTransformerModel:
        return TokenTransformerModel()

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Float[Tensor, " example"]:
        masked = noise.uniform(N_TOKENS) < _MASKED_SHARE
        logits = model(torch.where(masked, _MASK, batch.inputs))
        surprise = functional.cross_entropy(logits.mT, batch.inputs, reduction="none")
        return (surprise * masked).sum(1)

    def latent(self, model: nn.Module, batch: Batch) -> Float[Tensor, "example d_latent"]:
        states: Tensor = cast(TokenTransformerModel, model).encoder(batch.inputs)
        return states.mean(1)


class TokenTransformerModel(nn.Module):
    """Encoder and a linear read-out to the vocabulary."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = TokenEncoder()
        self.head = nn.Linear(_D_MODEL, VOCABULARY)

    def forward(self, tokens: Int[Tensor, "example token"]) -> Float[Tensor, "example token word"]:
        logits: Tensor = self.head(self.encoder(tokens))
        return logits


class TokenEncoder(nn.Module):
    """Embedding plus fixed sinusoidal positions, then four attention layers."""

    positions: Tensor

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(_D_MODEL, nhead=4, dim_feedforward=4 * _D_MODEL, batch_first=True)
        self.embedding = nn.Embedding(VOCABULARY + 1, _D_MODEL)
        self.layers = nn.TransformerEncoder(layer, num_layers=4, enable_nested_tensor=False)
        self.register_buffer("positions", _sinusoids(N_TOKENS, _D_MODEL))

    def forward(self, tokens: Int[Tensor, "example token"]) -> Float[Tensor, "example token d_model"]:
        states: Tensor = self.layers(self.embedding(tokens) + self.positions)
        return states


def _sinusoids(n_tokens: int, d_model: int) -> Float[Tensor, "token d_model"]:
    """Sine and cosine of position / 10000^(2i / d_model)."""
    rates = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10_000.0) / d_model))
    angles = torch.arange(n_tokens)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
