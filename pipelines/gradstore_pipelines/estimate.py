"""`--dry-run`: what a build will take, from a short probe of the real model on real rows. Writes nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from gradstore.data import load_batch
from gradstore.gradients import GradientEngine
from gradstore.gradients.coverage import How
from gradstore.gradients.timing import time_shares
from gradstore.rehearsal import build_model
from gradstore.sketcher import single_thread
from gradstore.store import Manifest, layout
from gradstore.task import Batch, Noise, Task
from gradstore_pipelines.preparation import Prepared, prepare, probe_batch
from gradstore_pipelines.progress import Reporter, Silent
from gradstore_pipelines.settings import BuildSettings

_REPEATS = 3


@dataclass(frozen=True)
class Estimate:
    """What a build will make and take."""

    n_examples: int
    n_checkpoints: int
    n_tracked_parameters: int
    coverage: list[tuple[str, int, int]]
    """(route, tensors, numbers)"""
    time_shares: Mapping[How, float]
    """Of the routes, in the time of sketching."""
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
    model = build_model(prepared.task).to(device)
    training = 0.0 if prepared.given else _seconds_training(settings, prepared, model, device)
    engine = GradientEngine(
        prepared.task,
        model,
        {name: name for name in settings.parameters},
        d_sketch=settings.sketch_dim,
        seed=settings.seed,
        n_draws=settings.draws,
    )
    probe = probe_batch(prepared.source).to(device)
    engine.prepare(probe)
    block = _rows(prepared, prepared.block, device)
    with single_thread():
        shares = time_shares(engine, probe)
        a_row = _seconds(lambda: engine.run(block)) / len(block)
    store = _imagined(settings, prepared, engine, n_checkpoints, engine.latents(block).shape[1])
    n_shards = store.n_shards * n_checkpoints
    return Estimate(
        n_examples=n_examples,
        n_checkpoints=n_checkpoints,
        n_tracked_parameters=engine.coverage.n_parameters,
        coverage=engine.coverage.summary(),
        time_shares=shares,
        n_shards=n_shards,
        n_files=n_shards * (len(layout.arrays(store)) + 1) + n_checkpoints,
        n_bytes=n_shards * layout.shard_bytes(store) + (0 if prepared.given else n_checkpoints * _bytes_of(model)),
        seconds_training=training,
        seconds_sketching=a_row * n_examples * n_checkpoints / max(settings.workers, 1),
    )


def _imagined(
    settings: BuildSettings, prepared: Prepared, engine: GradientEngine, n_checkpoints: int, d_latent: int
) -> Manifest:
    """The manifest of the store that the build would make, as far as it sizes the arrays."""
    return Manifest(
        n_examples=len(prepared.source),
        d_sketch=settings.sketch_dim,
        d_latent=d_latent,
        shard_rows=prepared.shard_rows,
        learning_rates=(0.0,) * n_checkpoints,
        label_names=None,
        settings={},
        provenance={},
        parameter_sets=settings.parameters,
        layers=engine.layers if settings.per_layer_norms else None,
        n_draws=settings.draws,
    )


def _bytes_of(model: torch.nn.Module) -> int:
    """Weights and buffers, as a checkpoint that is trained here keeps them."""
    return sum(value.numel() * value.element_size() for value in model.state_dict().values())


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
