"""Bring inputs to a range that a network learns from, with numbers that live inside the checkpoint.

Why a module with buffers and not a step of the reader: a query read next year must be scaled by the numbers of
the training data, and the checkpoint is the one file that is always there when a query is sketched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from gradstore.errors import TaskError

if TYPE_CHECKING:
    from gradstore.data import DataSummary

# A feature whose spread is below this share of its own mean varies by float32 rounding only: it is constant.
_ROUNDING = 1e-6


class InputScaling(nn.Module):
    """`(inputs - shift) / scale`, one shift and one scale a feature; training calls `fit` on every one in a model.

    It starts as the identity, which is also what `fit` leaves for data within 0..1 (bytes arrive so).
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, example_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("shift", torch.zeros(example_shape))
        self.register_buffer("scale", torch.ones(example_shape))

    def forward(self, inputs: Shaped[Tensor, "example ..."]) -> Float[Tensor, "example ..."]:
        return (inputs.to(self.scale.dtype) - self.shift) / self.scale

    def fit(self, summary: DataSummary) -> None:
        """Standardise every feature, unless all the data lies within 0..1; a constant feature is only centred.

        Raises:
            TaskError: the summary was read from JSON, which does not hold each feature's mean and deviation.
        """
        if is_unit_range(summary):
            return
        mean, std = summary.feature_mean, summary.feature_std
        if mean is None or std is None:
            raise TaskError("This summary has no mean and deviation of each feature. Scan the data again to train.")
        scale = np.where(std > _ROUNDING * np.abs(mean), std, 1.0)
        self.shift.copy_(torch.from_numpy(mean).reshape(self.shift.shape))
        self.scale.copy_(torch.from_numpy(scale).reshape(self.scale.shape))


def is_unit_range(summary: DataSummary) -> bool:
    """Whether every value lies within 0..1, so that it can be read as an intensity or a probability."""
    return bool(summary.minimum >= 0.0 and summary.maximum <= 1.0)
