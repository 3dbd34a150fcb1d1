"""Reconstruction losses: -log p(inputs | reconstruction), one number an example, in nats."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from gradstore.models.scaling import is_unit_range

if TYPE_CHECKING:
    from gradstore.data import DataSummary

Likelihood = Literal["bernoulli", "gaussian"]


def negative_log_likelihood(
    outputs: Float[Tensor, "example ..."], inputs: Float[Tensor, "example ..."], likelihood: Likelihood
) -> Float[Tensor, " example"]:
    """-log p(inputs | outputs), summed over features.

    bernoulli: `-sum_f x log s(o) + (1 - x) log(1 - s(o))`, s the logistic function, x within 0..1.
    gaussian, unit variance: `sum_f (x - o)² / 2 + log(2 pi) / 2`.
    """
    if likelihood == "bernoulli":
        return functional.binary_cross_entropy_with_logits(outputs, inputs, reduction="none").flatten(1).sum(1)
    return (0.5 * (inputs - outputs).square() + 0.5 * math.log(2.0 * math.pi)).flatten(1).sum(1)


def natural_likelihood(summary: DataSummary) -> Likelihood:
    """Bernoulli for data within 0..1, gaussian (on standardised features) for any other."""
    return "bernoulli" if is_unit_range(summary) else "gaussian"
