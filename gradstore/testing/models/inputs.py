"""Inputs with structure, made from a generator: blobs for images, sines for series, a Markov chain for tokens."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

_N_BLOBS, _N_SINES, N_CLASSES = 3, 3, 10


def blobs(n: int, side: int, random: torch.Generator) -> Float[Tensor, "example 1 row column"]:
    """Three Gaussian blobs of any place and width on black, within 0..1."""
    centre = 1.4 * torch.rand(n, _N_BLOBS, 2, 1, generator=random) - 0.7
    width = 0.1 + 0.3 * torch.rand(n, _N_BLOBS, 2, 1, generator=random)
    profiles = torch.exp(-0.5 * ((torch.linspace(-1.0, 1.0, side) - centre) / width).square())
    return (profiles[:, :, 0, :, None] * profiles[:, :, 1, None, :]).amax(1, keepdim=True)


def coloured_blobs(
    n: int, side: int, random: torch.Generator
) -> tuple[Float[Tensor, "example 3 row column"], Int[Tensor, " example"]]:
    """Blobs in one of ten hues, and the hue's number as label."""
    labels = torch.randint(N_CLASSES, (n,), generator=random)
    phase = labels[:, None] / N_CLASSES + torch.arange(3) / 3
    colour = 0.5 + 0.5 * torch.cos(2.0 * math.pi * phase)
    return blobs(n, side, random) * colour[:, :, None, None], labels


def sines(n: int, n_steps: int, random: torch.Generator) -> Float[Tensor, "example step 1"]:
    """Sums of three sines of 1 to 8 cycles, each with its own amplitude and phase."""
    amplitude, cycles, phase = torch.rand(3, n, _N_SINES, 1, generator=random)
    turns = (1.0 + 7.0 * cycles) * torch.linspace(0.0, 1.0, n_steps) + phase
    waves: Tensor = amplitude * torch.sin(2.0 * math.pi * turns)
    return waves.sum(1)[..., None]


def tokens(n: int, n_tokens: int, vocabulary: int, random: torch.Generator) -> Int[Tensor, "example token"]:
    """Walks of one Markov chain, the same for every generator, whose steps favour a few successors."""
    logits = 3.0 * torch.randn(vocabulary, vocabulary, generator=torch.Generator().manual_seed(0))
    cumulative = logits.softmax(1).cumsum(1)
    chance = torch.rand(n_tokens, n, 1, generator=random)
    walk = [torch.randint(vocabulary, (n, 1), generator=random)]
    for step in range(1, n_tokens):
        successor = torch.searchsorted(cumulative[walk[-1][:, 0]], chance[step])
        walk.append(successor.clamp(max=vocabulary - 1))  # the last sum may round to less than 1
    return torch.cat(walk, dim=1)
