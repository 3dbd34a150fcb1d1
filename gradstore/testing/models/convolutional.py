"""The two small image models: a convolutional autoencoder and a convolutional VAE.

Sources: the autoencoder of Crabbé & van der Schaar 2022, arXiv:2203.01928; the VAE of Burgess et al. 2018,
arXiv:1804.03599.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradstore.models.likelihood import negative_log_likelihood
from gradstore.models.vae import kl_from_standard_normal
from gradstore.task import Batch, Noise, Task

_D_LATENT = 10


class EncoderDecoder(nn.Module):
    """Two modules by the names that the tasks use."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.decoder(self.encoder(inputs))
        return outputs


class ConvAutoencoder(Task):
    """28 x 28 images to 4 numbers and back: loss = sum of squared errors of an example."""

    def build(self) -> EncoderDecoder:
        encoder = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(288, 128), nn.ReLU(), nn.Linear(128, 4)),
        )
        decoder = nn.Sequential(
            *(nn.Linear(4, 128), nn.ReLU(), nn.Linear(128, 288), nn.ReLU(), nn.Unflatten(1, (32, 3, 3))),
            *(nn.ConvTranspose2d(32, 16, 3, stride=2), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1), nn.ReLU()),
            nn.ConvTranspose2d(8, 1, 3, stride=2, padding=1, output_padding=1),
        )
        return EncoderDecoder(encoder, decoder)

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Float[Tensor, " example"]:
        errors: Tensor = model(batch.inputs) - batch.inputs
        return errors.square().flatten(1).sum(1)

    def latent(self, model: nn.Module, batch: Batch) -> Float[Tensor, "example d_latent"]:
        latent: Tensor = cast(EncoderDecoder, model).encoder(batch.inputs)
        return latent


class ConvVAE(Task):
    """32 x 32 images, ten latents: loss = -log p(x | z) + KL(q(z | x) || N(0, I)), z drawn from `noise`."""

    def build(self) -> EncoderDecoder:
        encoder = nn.Sequential(
            *(nn.Conv2d(1, 32, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(32, 32, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(32, 32, 4, stride=2, padding=1), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()),
            nn.Linear(256, 2 * _D_LATENT),
        )
        decoder = nn.Sequential(
            *(nn.Linear(_D_LATENT, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()),
            *(nn.Linear(256, 512), nn.ReLU(), nn.Unflatten(1, (32, 4, 4))),
            *(nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1), nn.ReLU()),
            *(nn.ConvTranspose2d(32, 32, 4, stride=2, padding=1), nn.ReLU()),
            nn.ConvTranspose2d(32, 1, 4, stride=2, padding=1),
        )
        return EncoderDecoder(encoder, decoder)

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Float[Tensor, " example"]:
        vae = cast(EncoderDecoder, model)
        mean, log_variance = vae.encoder(batch.inputs).chunk(2, dim=1)
        latent = mean + torch.exp(0.5 * log_variance) * noise.normal(_D_LATENT).to(mean.dtype)
        reconstruction = negative_log_likelihood(vae.decoder(latent), batch.inputs, "bernoulli")
        return reconstruction + kl_from_standard_normal(mean, log_variance)

    def latent(self, model: nn.Module, batch: Batch) -> Float[Tensor, "example d_latent"]:
        mean: Tensor = cast(EncoderDecoder, model).encoder(batch.inputs)[:, :_D_LATENT]
        return mean
