"""The variational autoencoder: the default model, for data of any shape, without labels.

Source: Kingma & Welling 2013, arXiv:1312.6114; its gradients as a detector: Kong & Chaudhuri 2021 (VAE-TracIn),
arXiv:2105.14203. Tracking the encoder alone gives the label-free importance of Crabbé & van der Schaar 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradstore.models.body import decoder_body, encoder_body, prefers_convolution
from gradstore.models.likelihood import Likelihood, negative_log_likelihood
from gradstore.models.scaling import InputScaling
from gradstore.models.shape import check_sizes
from gradstore.task import Batch, Noise, Task

# exp(10) is far from float32's overflow, and a posterior of variance exp(-10) is already a point.
_MAX_LOG_VARIANCE = 10.0


@dataclass(frozen=True, kw_only=True)
class VAE(Task):
    """Variational autoencoder with a normal posterior and prior.

    loss = -log p(x | z) + beta KL(q(z | x) || N(0, I)),  z = mean + sigma * noise, in nats an example.
    """

    example_shape: tuple[int, ...]
    "Shape of one example; images are channels first: (C, H, W)."
    d_latent: int = 16
    "Size of the latent."
    width: int = 256
    "Units of the hidden layer."
    beta: float = 1.0
    "Weight of the KL term; 1 is the evidence lower bound."
    likelihood: Likelihood = "bernoulli"
    "bernoulli for values within 0..1, gaussian (unit variance) for standardised ones."

    def __post_init__(self) -> None:
        check_sizes(self.example_shape, d_latent=self.d_latent, width=self.width)

    def build(self) -> VAEModel:
        return VAEModel(self.example_shape, self.d_latent, self.width)

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Float[Tensor, " example"]:
        vae = cast(VAEModel, model)
        inputs = vae.scaling(batch.inputs)
        mean, log_variance = vae.encoder(inputs)
        latent = mean + torch.exp(0.5 * log_variance) * noise.normal(self.d_latent)
        reconstruction = negative_log_likelihood(vae.decoder(latent), inputs, self.likelihood)
        return reconstruction + self.beta * kl_from_standard_normal(mean, log_variance)

    def latent(self, model: nn.Module, batch: Batch) -> Float[Tensor, "example d_latent"]:
        vae = cast(VAEModel, model)
        mean: Tensor = vae.encoder(vae.scaling(batch.inputs))[0]
        return mean


def kl_from_standard_normal(
    mean: Float[Tensor, "example d_latent"], log_variance: Float[Tensor, "example d_latent"]
) -> Float[Tensor, " example"]:
    """KL(N(mean, variance) || N(0, I)) = sum_d (mean² + variance - 1 - log variance) / 2, in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum(1)


class VAEModel(nn.Module):
    """Scaling, encoder and decoder; called on inputs it returns the reconstruction from the posterior's mean."""

    def __init__(self, example_shape: tuple[int, ...], d_latent: int, width: int) -> None:
        super().__init__()
        convolutional = prefers_convolution(example_shape)
        self.scaling = InputScaling(example_shape)
        self.encoder = GaussianEncoder(encoder_body(example_shape, width, convolutional=convolutional), width, d_latent)
        self.decoder = decoder_body(example_shape, d_latent, width, convolutional=convolutional)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.decoder(self.encoder(self.scaling(inputs))[0])
        return outputs


class GaussianEncoder(nn.Module):
    """Mean and log-variance of q(z | x)."""

    def __init__(self, body: nn.Module, width: int, d_latent: int) -> None:
        super().__init__()
        self.body = body
        self.mean = nn.Linear(width, d_latent)
        self.log_variance = nn.Linear(width, d_latent)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(inputs)
        return self.mean(features), _bounded(self.log_variance(features))


def _bounded(log_variance: Tensor) -> Tensor:
    """Smoothly within ±10: a hard clamp would cut the gradient of exactly the odd examples we look for."""
    return _MAX_LOG_VARIANCE * torch.tanh(log_variance / _MAX_LOG_VARIANCE)
