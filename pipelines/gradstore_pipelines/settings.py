"""What a build is asked to do."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gradstore.errors import DeviceError
from gradstore.store.place import Location, Place, as_location, local_folder, place_of
from gradstore_pipelines.settings_error import SettingsError as SettingsError
from gradstore_pipelines.where import Where

# Rows evaluated together, the store's own: see gradstore.sketcher. The default VAE on 28 x 28 images takes 181 us a row
# in blocks of 64, 101 in 256 and 93 in 512 (calling torch costs as much as it computes); a GPU is idle on few rows.
_SMALLEST_BLOCK, _BLOCK, _BLOCK_CUDA, _LARGEST_BLOCK = 16, 64, 256, 512
# What a block keeps for the backward pass: up to this it grows, above that it shrinks.
_GROWS_TO, _SHRINKS_FROM = 32 << 20, 128 << 20
# Half of what reads fastest, by a few percent: a worker holds one shard in memory, and a killed one loses one.
_SHARD_BYTES = 8 << 20
_SHARDS_AT_LEAST = 8
_BYTES = {"float16": 2, "float32": 4, "int8": 1}
REQUEST = "build/request.json"
"""What was asked before there was a store."""
_LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """Settings of `build`; the string under a field is its documentation."""

    source: Location
    """The data: .npy, .npz, an IDX file, or a folder of images; also in a bucket, as s3://bucket/x.npy."""
    store: Location
    """Where the gradient store is, or will be: a folder, or s3://bucket/prefix (gs and az as well)."""
    model: str = "vae"
    """vae, autoencoder, classifier, or your own Task as module:object or file.py:object."""
    labels: Location | None = None
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
    sketch_dtype: Literal["float16", "float32", "int8"] = "float16"
    """How those numbers are kept: int8, with a scale a row, takes half the bytes of float16, float32 twice; see the
    fidelity command."""
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
    """Processes that sketch: 0 is this one, more start a local Dask cluster; with --device cuda one a GPU."""
    scheduler: str | None = None
    """Sketch on the workers of a running Dask scheduler: tcp://host:8786, or tls://host:8786 with the --tls files."""
    tls_ca_file: Path | None = None
    """Certificate authority by which client, scheduler and workers know one another."""
    tls_cert: Path | None = None
    """This client's certificate."""
    tls_key: Path | None = None
    """Its key."""
    cluster: Path | None = None
    """Sketch in jobs of a batch system (slurm, pbs, sge, lsf) that this TOML file describes."""
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
        self.where()
        if self.shard_rows is not None and (self.shard_rows < _BLOCK or self.shard_rows % _BLOCK):
            raise SettingsError(f"--shard-rows is {self.shard_rows}; it must be a multiple of {_BLOCK}.")
        if not 0 <= self.seed <= _LARGEST_SEED:
            raise SettingsError(f"--seed is {self.seed}; it must be a number from 0 to {_LARGEST_SEED}.")
        self._check_parameters()

    def _convert(self) -> None:
        for name in ("source", "store", "labels", "tls_ca_file", "tls_cert", "tls_key"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else as_location(value))
        for name in ("parameters", "checkpoints"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(map(str, value)))

    def _check_parameters(self) -> None:
        if not self.parameters:
            raise SettingsError("--parameters names nothing; track encoder, decoder, all, or a pattern of names.")
        twice = [name for name in self.parameters if self.parameters.count(name) > 1]
        if twice:
            raise SettingsError(f"--parameters {twice[0]!r} is given more than once; every set must be another.")

    def where(self) -> Where:
        """Where it sketches.

        Raises:
            SettingsError: several places, files that are not there, or a table that cannot be understood.
        """
        return Where.asked_by(self)

    def rows_a_shard(self, n_examples: int, block: int) -> int:
        """Whole blocks: shards of 8 MiB, but about eight of them, so that small data is resumed and shared out too."""
        if self.shard_rows is not None:
            return self.shard_rows
        by_size = _SHARD_BYTES // (_BYTES[self.sketch_dtype] * self.sketch_dim)
        by_count = -(-n_examples // _SHARDS_AT_LEAST)
        return max(block, -(-min(by_size, by_count) // block) * block)

    def begun_block(self) -> int | None:
        """Rows evaluated together in a store that is begun: another device may finish it, by the same."""
        if not self.place.exists(REQUEST):
            return None
        return int(json.loads(self.place.read(REQUEST))["block"])

    def block(self, n_examples: int, bytes_an_example: int) -> int:
        """Rows evaluated together in a new store.

        The more the faster, within bounds: what they keep for the backward pass; a shard is made of whole blocks; and
        small data has sixteen of them, so that it is shared out too.

        Args:
            bytes_an_example: what its loss keeps for the backward pass (`gradstore.rehearsal.saved_bytes`).
        """
        on_cuda = self.sketching_device().startswith("cuda")
        at_most = min(_LARGEST_BLOCK, n_examples // 16, _GROWS_TO // max(bytes_an_example, 1))
        block = _BLOCK
        while 2 * block <= max(_BLOCK_CUDA if on_cuda else 0, at_most) and (self.shard_rows or 0) % (2 * block) == 0:
            block *= 2
        while block > _SMALLEST_BLOCK and block * bytes_an_example > _SHRINKS_FROM and not on_cuda:
            block //= 2
        return block

    @property
    def place(self) -> Place:
        """Where the store lies, or will."""
        return place_of(self.store)

    @property
    def folder(self) -> Path:
        """Where training goes on: the store's own folder, or, for one in a bucket, a folder of the cache."""
        return local_folder(self.store)

    def resolved_device(self) -> str:
        """`auto` becomes the GPU where torch sees one; DeviceError where there is no such device.

        Where others sketch, this machine need not have it: it then prepares on the CPU.
        """
        from gradstore.devices import usable_device

        try:
            return usable_device(self.device)
        except DeviceError:
            if not (self._is_elsewhere and self.device.startswith("cuda")):
                raise
            return "cpu"

    def sketching_device(self) -> str:
        """What workers are told: those of other machines look for themselves."""
        return self.device if self._is_elsewhere else self.resolved_device()

    @property
    def _is_elsewhere(self) -> bool:
        return self.scheduler is not None or self.cluster is not None

    def training(self) -> Mapping[str, Any] | None:
        """The training recipe as JSON, None when weights are given."""
        if self.checkpoints:
            return None
        names = ("epochs", "n_checkpoints", "train_batch_size", "seed")
        return {name: getattr(self, name) for name in names} | {"learning_rate": self.learning_rate}
