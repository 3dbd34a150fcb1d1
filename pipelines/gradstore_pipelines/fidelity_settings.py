"""What a measurement of fidelity is asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradstore.store.place import Location
from gradstore_pipelines.settings import SettingsError

_FEWEST_EXAMPLES = 3
_MOST_EXAMPLES = 4096  # influence of all pairs is held: 128 MiB a matrix
_LONGEST = 65_536


@dataclass(frozen=True, kw_only=True)
class FidelitySettings:
    """Settings of `fidelity`; the string under a field is its documentation."""

    store: Location
    """The gradient store."""
    sample: int = 256
    """Examples to compare, drawn at random; time grows with the square of their number on large models."""
    sketch_dim: tuple[int, ...] = ()
    """Length of a sketch to measure; by default a quarter, half, one, two and four times the store's."""
    recall: float = 0.9
    """Recall@10 that is asked for, above 0 and at most 1."""
    parameters: str | None = None
    """Whose gradients: a set that build tracked; by default its first."""
    checkpoints: int | None = None
    """Use only so many checkpoints, evenly spread; by default all."""
    memory: int = 256
    """Megabytes of exact gradients held at a time; on large models more of it means less time."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    seed: int = 0
    """Of the sample; the projection's seed is the store's."""

    def __post_init__(self) -> None:
        if not _FEWEST_EXAMPLES <= self.sample <= _MOST_EXAMPLES:
            raise SettingsError(f"--sample is {self.sample}; it must be {_FEWEST_EXAMPLES} to {_MOST_EXAMPLES}.")
        if not (math.isfinite(self.recall) and 0 < self.recall <= 1):
            raise SettingsError(f"--recall is {self.recall}; it must be above 0 and at most 1, such as 0.9.")
        for name in ("checkpoints", "memory"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"--{name} is {value}; it must be at least 1.")
        for length in self.sketch_dim:
            if not 1 <= length <= _LONGEST:
                raise SettingsError(f"--sketch-dim is {length}; it must be 1 to {_LONGEST}.")
        if self.seed < 0:
            raise SettingsError(f"--seed is {self.seed}; it must be at least 0.")

    def lengths(self, d_sketch: int) -> list[int]:
        """Lengths to measure for a store of sketches of `d_sketch`, shortest first."""
        around = {max(1, d_sketch // 4), max(1, d_sketch // 2), d_sketch, 2 * d_sketch, 4 * d_sketch}
        return sorted(set(self.sketch_dim) or around)
