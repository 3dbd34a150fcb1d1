"""Counter-based random bits: a hash of integers, the same on every device, batch and machine.

Why not Philox: torch has no Philox that takes a key per row and runs under vmap. The finaliser of SplitMix64
(Steele, Lea & Flood 2014) passes BigCrush as a counter generator and is seven integer operations; int64
multiplication wraps on CPU and CUDA alike, so the bits are exact everywhere.
"""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float, Int
from torch import Tensor


def _signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift_right(words: Int[Tensor, "..."], bits: int) -> Int[Tensor, "..."]:
    """Logical shift: int64's own is arithmetic."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def _mix(words: Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    words = (words ^ _shift_right(words, 30)) * _MIX_1
    words = (words ^ _shift_right(words, 27)) * _MIX_2
    return words ^ _shift_right(words, 31)


def hash_words(*parts: int | Int[Tensor, "..."]) -> Int[Tensor, "..."]:
    """64 random bits a broadcast element of `parts` (integers and int64 tensors; at least one tensor)."""
    state: Tensor = torch.zeros((), dtype=torch.int64)
    for part in parts:
        word = torch.tensor(_signed(part % (1 << 64))) if isinstance(part, int) else part
        state = _mix(state * _GOLDEN + word + _GOLDEN)  # a single number on the CPU mixes with any device
    return state


def to_unit_interval(words: Int[Tensor, "..."]) -> Float[Tensor, "..."]:
    """float64 on the open interval (0, 1) from the upper 53 bits."""
    return (_shift_right(words, 11).to(torch.float64) + 0.5) * 2.0**-53


def key_of(text: str) -> int:
    """A 64-bit integer for a name, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
