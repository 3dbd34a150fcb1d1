"""`--dry-run`: what a build will take, from a short probe of the real model on real rows. Writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from gradstore.data import load_batch
from gradstore.gradients import GradientEngine
from gradstore.sketcher import single_thread
from gradstore.store import layout
from gradstore.task import Batch, Noise, Task
from gradstore_pipelines.build_store import Prepared, prepare, probe_batch
from gradstore_pipelines.progress import Reporter, Silent
from gradstore_pipelines.settings import BLOCK, BuildSettings

_REPEATS = 3


@dataclass(frozen=True)
class Estimate:
    """What a build will make and take."""

    n_examples: int
    n_checkpoints: int
    n_tracked_parameters: int
    coverage: list[tuple[str, int, int]]
    """(route, tensors, numbers)"""
    n_shards: int
    n_files: int
    n_bytes: int
    seconds_training: float
    seconds_sketching: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def estimate(settings: BuildSettings, reporter: Reporter | None = None) -> Estimate:
    """Time a few batches and count the rest. Raises what `build` would raise about data, model and settings."""
    prepared = prepare(settings, reporter or Silent())
    n_examples, device = len(prepared.source), settings.resolved_device()
    n_checkpoints = len(prepared.given) or settings.n_checkpoints
    model = prepared.task.build().to(device)
    training = 0.0 if prepared.given else _seconds_training(settings, prepared, model, device)
    engine = GradientEngine(
        prepared.task, model, settings.parameters, d_sketch=settings.sketch_dim, seed=0, n_draws=settings.draws
    )
    engine.prepare(probe_batch(prepared.source).to(device))
    block = _rows(prepared, BLOCK, device)
    with single_thread():
        a_row = _seconds(lambda: engine.run(block)) / len(block)
    d_latent = engine.run(block).latents.shape[1]
    n_shards = -(-n_examples // settings.rows_a_shard(n_examples)) * n_checkpoints
    return Estimate(
        n_examples=n_examples,
        n_checkpoints=n_checkpoints,
        n_tracked_parameters=engine.coverage.n_parameters,
        coverage=engine.coverage.summary(),
        n_shards=n_shards,
        n_files=n_shards * (len(layout.ARRAYS) + 1) + n_checkpoints,
        n_bytes=_bytes_a_shard(settings, n_examples, d_latent) * n_shards
        + (0 if prepared.given else n_checkpoints * _bytes_of(model)),
        seconds_training=training,
        seconds_sketching=a_row * n_examples * n_checkpoints / max(settings.workers, 1),
    )


def _bytes_of(model: torch.nn.Module) -> int:
    """Weights and buffers, as a checkpoint that is trained here keeps them."""
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())


def _bytes_a_shard(settings: BuildSettings, n_examples: int, d_latent: int) -> int:
    """float16 sketches; float32 norm, loss and latent."""
    return settings.rows_a_shard(n_examples) * (2 * settings.sketch_dim + 4 + 4 + 4 * d_latent)


def _seconds_training(settings: BuildSettings, prepared: Prepared, model: torch.nn.Module, device: str) -> float:
    batch = _rows(prepared, settings.train_batch_size, device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    with single_thread():
        step = _seconds(lambda: _step(prepared.task, model, batch, optimizer))
    return step / len(batch) * len(prepared.source) * settings.epochs


def _step(task: Task, model: torch.nn.Module, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(task.loss(model, batch, Noise(batch.keys, 0)).mean())
    optimizer.step()


def _rows(prepared: Prepared, count: int, device: str) -> Batch:
    return load_batch(prepared.source, slice(0, min(count, len(prepared.source)))).to(device)


def _seconds(work: Callable[[], object]) -> float:
    """Best of a few runs after a first one that pays for set-up."""
    times = []
    for _ in range(_REPEATS + 1):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])
