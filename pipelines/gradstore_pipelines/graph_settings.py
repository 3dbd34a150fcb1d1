"""What a kNN graph is asked to be."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from gradstore.store.place import Location, as_location
from gradstore_pipelines.settings import SettingsError


@dataclass(frozen=True, kw_only=True)
class GraphSettings:
    """Settings of `graph`; the string under a field is its documentation."""

    store: Location
    """The gradient store."""
    space: Literal["gradient", "latent"] = "gradient"
    """What is compared: directions of gradients, or latents."""
    k: int = 10
    """Nearest examples to find of each."""
    metric: Literal["l2", "cosine"] | None = None
    """How: cosine for gradients; for latents l2 unless told otherwise."""
    checkpoint: tuple[int, ...] = ()
    """Compare at this checkpoint (0 is the first, -1 the last) instead of over all together."""
    parameters: str | None = None
    """Whose gradients: a set that build tracked; by default its first."""
    method: Literal["auto", "exact", "cells"] = "auto"
    """exact compares all with all; cells only what lies near; auto is exact up to 65,536 examples."""
    recall: float = 0.95
    """Share of the nearest that cells shall hold; the share found is measured afterwards."""
    workers: int = 0
    """Processes that search: 0 is this one, more start a local Dask cluster."""
    device: str = "cpu"
    """cpu, cuda, or auto."""
    overwrite: bool = False
    """Replace a graph of other settings."""

    def __post_init__(self) -> None:
        """Paths may be given as strings."""
        object.__setattr__(self, "store", as_location(self.store))
        object.__setattr__(self, "checkpoint", tuple(self.checkpoint))
        if self.k < 1:
            raise SettingsError(f"--k is {self.k}; it must be at least 1.")
        if not (math.isfinite(self.recall) and 0 < self.recall <= 1):
            raise SettingsError(f"--recall is {self.recall}; it must be above 0 and at most 1, such as 0.95.")
        if self.workers < 0:
            raise SettingsError(f"--workers is {self.workers}; 0 means this process, N > 0 that many more.")

    def resolved_device(self) -> str:
        """`auto` becomes the GPU where torch sees one; DeviceError where there is no such device."""
        from gradstore.devices import usable_device

        return usable_device(self.device)
