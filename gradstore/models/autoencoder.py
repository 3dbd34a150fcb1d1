"""The denoising autoencoder: reconstruct an example from a corrupted copy of it.

Source: Vincent et al. 2008, Extracting and composing robust features with denoising autoencoders, ICML.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradstore.errors import TaskError
from gradstore.models.body import decoder_body, encoder_body, prefers_convolution
from gradstore.models.likelihood import Likelihood, negative_log_likelihood
from gradstore.models.scaling import InputScaling
from gradstore.models.shape import check_sizes
from gradstore.task import Batch, Noise, Task

Corruption = Literal["gaussian", "masking"]


@dataclass(frozen=True, kw_only=True)
class Autoencoder(Task):
    """Denoising autoencoder: loss = -log p(x | decode(encode(corrupted x))), in nats an example."""

    example_shape: tuple[int, ...]
    "Shape of one example; images are channels first: (C, H, W)."
    d_latent: int = 16
    "Size of the latent."
    width: int = 256
    "Units of the hidden layer."
    corruption: Corruption = "gaussian"
    "gaussian adds noise to the scaled inputs, masking sets values to zero."
    noise_level: float = 0.1
    "Standard deviation of the gaussian noise, or the share of values masked; 0 is a plain autoencoder."
    likelihood: Likelihood = "bernoulli"
    "bernoulli for values within 0..1, gaussian (squared error) for standardised ones."

    def __post_init__(self) -> None:
        check_sizes(self.example_shape, d_latent=self.d_latent, width=self.width)
        if self.noise_level < 0 or (self.corruption == "masking" and self.noise_level >= 1):
            raise TaskError(
                f"noise_level={self.noise_level} does not go with {self.corruption} corruption. "
                "Use 0 or more for gaussian, 0 or more and less than 1 for masking."
            )

    def build(self) -> AutoencoderModel:
        return AutoencoderModel(self.example_shape, self.d_latent, self.width)

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Float[Tensor, " example"]:
        autoencoder = cast(AutoencoderModel, model)
        inputs = autoencoder.scaling(batch.inputs)
        outputs = autoencoder.decoder(autoencoder.encoder(self._corrupted(inputs, noise)))
        return negative_log_likelihood(outputs, inputs, self.likelihood)

    def latent(self, model: nn.Module, batch: Batch) -> Float[Tensor, "example d_latent"]:
        autoencoder = cast(AutoencoderModel, model)
        code: Tensor = autoencoder.encoder(autoencoder.scaling(batch.inputs))
        return code

    def _corrupted(self, inputs: Float[Tensor, "example ..."], noise: Noise) -> Float[Tensor, "example ..."]:
        if self.noise_level == 0:
            return inputs
        if self.corruption == "masking":
            return torch.where(noise.uniform(*self.example_shape) < self.noise_level, 0.0, inputs)
        return inputs + self.noise_level * noise.normal(*self.example_shape)


class AutoencoderModel(nn.Module):
    """Scaling, encoder and decoder; called on inputs it returns their reconstruction."""

    def __init__(self, example_shape: tuple[int, ...], d_latent: int, width: int) -> None:
        super().__init__()
        convolutional = prefers_convolution(example_shape)
        body = encoder_body(example_shape, width, convolutional=convolutional)
        self.scaling = InputScaling(example_shape)
        self.encoder = nn.Sequential(body, nn.Linear(width, d_latent))
        self.decoder = decoder_body(example_shape, d_latent, width, convolutional=convolutional)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.decoder(self.encoder(self.scaling(inputs)))
        return outputs
