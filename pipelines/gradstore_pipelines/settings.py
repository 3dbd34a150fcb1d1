"""What a build is asked to do."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gradstore.errors import GradstoreError

# Rows evaluated together, the store's own: see gradstore.sketcher. The default VAE on 28 x 28 images takes 181 us a row
# in blocks of 64, 101 in 256 and 93 in 512 (calling torch costs as much as it computes); a GPU is idle on few rows.
_SMALLEST_BLOCK, _BLOCK, _BLOCK_CUDA, _LARGEST_BLOCK = 16, 64, 256, 512
# What a block keeps for the backward pass: up to this it grows, above that it shrinks.
_GROWS_TO, _SHRINKS_FROM = 32 << 20, 128 << 20
# Half of what reads fastest, by a few percent: a worker holds one shard in memory, and a killed one loses one.
_SHARD_BYTES = 8 << 20
_SHARDS_AT_LEAST = 8
_LARGEST_SEED = 2**63 - 1


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
    parameters: tuple[str, ...] = ("encoder",)
    """Tracked parameters: encoder, decoder, all, or name patterns such as encoder.*,head.weight. Several sets share
    one pass over the data."""
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
    per_layer_norms: bool = False
    """Also keep the norm of every layer's gradient."""
    shard_rows: int | None = None
    """Examples in a shard; by default 8 MiB of sketches, or an eighth of small data."""

    def __post_init__(self) -> None:
        """Paths may be given as strings, and what is repeatable as one string."""
        self._convert()
        for name in ("sketch_dim", "draws", "epochs", "n_checkpoints", "train_batch_size", "batch_size", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"--{name.replace('_', '-')} is {value}; it must be at least 1.")
        if self.learning_rate is not None and not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise SettingsError(f"--learning-rate is {self.learning_rate}; it must be a number above 0.")
        if self.workers < 0:
            raise SettingsError(f"--workers is {self.workers}; 0 means this process, N > 0 that many more.")
        if self.shard_rows is not None and (self.shard_rows < _BLOCK or self.shard_rows % _BLOCK):
            raise SettingsError(f"--shard-rows is {self.shard_rows}; it must be a multiple of {_BLOCK}.")
        if not 0 <= self.seed <= _LARGEST_SEED:
            raise SettingsError(f"--seed is {self.seed}; it must be a number from 0 to {_LARGEST_SEED}.")
        self._check_parameters()

    def _convert(self) -> None:
        for name in ("source", "store", "labels"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else Path(value))
        for name in ("parameters", "checkpoints"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(map(str, value)))

    def _check_parameters(self) -> None:
        if not self.parameters:
            raise SettingsError("--parameters names nothing; track encoder, decoder, all, or a pattern of names.")
        twice = [name for name in self.parameters if self.parameters.count(name) > 1]
        if twice:
            raise SettingsError(f"--parameters {twice[0]!r} is given more than once; every set must be another.")

    def rows_a_shard(self, n_examples: int, block: int) -> int:
        """Whole blocks: shards of 8 MiB, but about eight of them, so that small data is resumed and shared out too."""
        if self.shard_rows is not None:
            return self.shard_rows
        by_size = _SHARD_BYTES // (2 * self.sketch_dim)
        by_count = -(-n_examples // _SHARDS_AT_LEAST)
        return max(block, -(-min(by_size, by_count) // block) * block)

    def begun_block(self) -> int | None:
        """Rows evaluated together in a store that is begun: another device may finish it, by the same."""
        if not self.request_file.is_file():
            return None
        return int(json.loads(self.request_file.read_bytes())["block"])

    def block(self, n_examples: int, bytes_an_example: int) -> int:
        """Rows evaluated together in a new store.

        The more the faster, within bounds: what they keep for the backward pass; a shard is made of whole blocks; and
        small data has sixteen of them, so that it is shared out too.

        Args:
            bytes_an_example: what its loss keeps for the backward pass (`gradstore.rehearsal.saved_bytes`).
        """
        on_cuda = self.resolved_device().startswith("cuda")
        at_most = min(_LARGEST_BLOCK, n_examples // 16, _GROWS_TO // max(bytes_an_example, 1))
        block = _BLOCK
        while 2 * block <= max(_BLOCK_CUDA if on_cuda else 0, at_most) and (self.shard_rows or 0) % (2 * block) == 0:
            block *= 2
        while block > _SMALLEST_BLOCK and block * bytes_an_example > _SHRINKS_FROM and not on_cuda:
            block //= 2
        return block

    @property
    def request_file(self) -> Path:
        """What was asked before there was a store."""
        return self.store / "build" / "request.json"

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
