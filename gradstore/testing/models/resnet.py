"""ResNet-18 for 32 x 32 images: a 3 x 3 stem without pooling, then four stages of two blocks.

Source: He et al. 2015, arXiv:1512.03385, in the form used for CIFAR.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar, Literal, cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from gradstore.errors import MissingLabelsError
from gradstore.task import Batch, Noise, Task
from gradstore.testing.models.inputs import N_CLASSES

Norm = Literal["batch", "group"]
_WIDTHS = (64, 64, 128, 256, 512)


@dataclass(frozen=True, kw_only=True)
class ResNet18(Task):
    """Ten classes: loss = cross-entropy with the label, in nats."""

    needs_labels: ClassVar[bool] = True

    norm: Norm = "batch"
    "batch: BatchNorm, to be run in eval mode; group: GroupNorm of 32 groups."

    def build(self) -> ResNet:
        return ResNet(self.norm)

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Float[Tensor, " example"]:
        if batch.labels is None:
            raise MissingLabelsError("ResNet18 learns from labels and this batch has none. Pass a batch with labels.")
        return functional.cross_entropy(model(batch.inputs), batch.labels, reduction="none")

    def latent(self, model: nn.Module, batch: Batch) -> Float[Tensor, "example d_latent"]:
        features: Tensor = cast(ResNet, model).encoder(batch.inputs)
        return features


class ResNet(nn.Module):
    """Encoder to 512 averaged features, and a linear classifier."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        stem = (_convolution(3, _WIDTHS[0], 3, 1), _norm(norm, _WIDTHS[0]), nn.ReLU())
        stages = [
            nn.Sequential(Block(d_in, d_out, 1 if stage == 0 else 2, norm), Block(d_out, d_out, 1, norm))
            for stage, (d_in, d_out) in enumerate(itertools.pairwise(_WIDTHS))
        ]
        self.encoder = nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(_WIDTHS[-1], N_CLASSES)

    def forward(self, inputs: Float[Tensor, "example 3 row column"]) -> Float[Tensor, "example label"]:
        logits: Tensor = self.head(self.encoder(inputs))
        return logits


class Block(nn.Module):
    """relu(residual(x) + shortcut(x)); the shortcut is the identity where the shape stays."""

    def __init__(self, d_in: int, d_out: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *(_convolution(d_in, d_out, 3, stride), _norm(norm, d_out), nn.ReLU()),
            *(_convolution(d_out, d_out, 3, 1), _norm(norm, d_out)),
        )
        projected = (_convolution(d_in, d_out, 1, stride), _norm(norm, d_out))
        self.shortcut = nn.Identity() if (d_in, stride) == (d_out, 1) else nn.Sequential(*projected)

    def forward(self, inputs: Float[Tensor, "example channel row column"]) -> Tensor:
        return functional.relu(self.residual(inputs) + self.shortcut(inputs))


def _convolution(d_in: int, d_out: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(d_in, d_out, kernel, stride, padding=kernel // 2, bias=False)


def _norm(norm: Norm, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(32, channels)
