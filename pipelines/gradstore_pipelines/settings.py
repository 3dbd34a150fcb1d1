"""What a build is asked to do."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gradstore.errors import GradstoreError

# Rows evaluated together, the store's own: see gradstore.sketcher.
BLOCK = 64
# Half of what reads fastest, by a few percent: a worker holds one shard in memory, and a killed one loses one.
_SHARD_BYTES = 8 << 20
_SHARDS_AT_LEAST = 8


class SettingsError(GradstoreError, ValueError):
    """A build setting out of its range."""


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """Settings of `build`; the string under a field is its documentation."""

    source: Path
    """The data: .npy, .npz, an IDX file, or a folder of images."""
    store: Path
    """Where the gradient store is, or will be."""
    model: str = "vae"
    """vae, autoencoder, classifier, or your own Task as module:object or file.py:object."""
    labels: Path | None = None
    """Labels in a file of their own."""
    image_size: int | None = None
    """Side to which the images of a folder are resized."""
    on_corrupt: Literal["refuse", "skip"] = "refuse"
    """What to do with images that cannot be decoded."""
    checkpoints: tuple[str, ...] = ()
    """Trained weights to use instead of training: paths or patterns such as ckpt/*.pt."""
    learning_rate: float | None = None
    """Learning rate: of the training, or of every given checkpoint, whatever its file says."""
    parameters: str = "encoder"
    """Tracked parameters: encoder, all, or name patterns such as encoder.*,head.weight."""
    sketch_dim: int = 1024
    """Numbers kept of each gradient."""
    draws: int = 1
    """Monte Carlo draws that a stochastic loss is averaged over."""
    epochs: int = 15
    """Passes over the data in training."""
    n_checkpoints: int = 5
    """Checkpoints recorded in training."""
    train_batch_size: int = 128
    """Examples in a training step."""
    batch_size: int = 256
    """Examples read at a time; never changes the result."""
    device: str = "auto"
    """cpu, cuda, or auto."""
    seed: int = 0
    """Of initial weights, shuffling, noise and projection."""
    workers: int = 0
    """Processes that sketch: 0 is this one, more start a local Dask cluster."""
    shard_rows: int | None = None
    """Examples in a shard; by default 8 MiB of sketches and at least eight shards."""

    def __post_init__(self) -> None:
        for name in ("sketch_dim", "draws", "epochs", "n_checkpoints", "train_batch_size", "batch_size", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"--{name.replace('_', '-')} is {value}; it must be at least 1.")
        if self.learning_rate is not None and not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise SettingsError(f"--learning-rate is {self.learning_rate}; it must be a number above 0.")
        if self.workers < 0:
            raise SettingsError(f"--workers is {self.workers}; 0 means this process, N > 0 that many more.")
        if self.shard_rows is not None and (self.shard_rows < BLOCK or self.shard_rows % BLOCK):
            raise SettingsError(f"--shard-rows is {self.shard_rows}; it must be a multiple of {BLOCK}.")

    def rows_a_shard(self, n_examples: int) -> int:
        """Shards of 8 MiB, but at least eight of them, so that small data is resumed and shared out too."""
        if self.shard_rows is not None:
            return self.shard_rows
        by_size = max(_SHARD_BYTES // (2 * self.sketch_dim), BLOCK)
        by_count = -(-n_examples // _SHARDS_AT_LEAST)
        return max(BLOCK, -(-min(by_size, by_count) // BLOCK) * BLOCK)

    def resolved_device(self) -> str:
        """`auto` becomes the GPU where torch sees one; DeviceError where there is no such device."""
        from gradstore.devices import usable_device

        return usable_device(self.device)

    def training(self) -> Mapping[str, Any] | None:
        """The training recipe as JSON, None when weights are given."""
        if self.checkpoints:
            return None
        names = ("epochs", "n_checkpoints", "train_batch_size", "seed")
        return {name: getattr(self, name) for name in names} | {"learning_rate": self.learning_rate}
