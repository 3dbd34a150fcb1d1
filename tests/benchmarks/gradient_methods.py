"""What `gradients.py` times on a batch: a plain training step, the engine, and two reference points.

A method takes a `Case`, does what has to be done once, and returns a step: a function that handles the batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from gradstore.gradients import GradientEngine
from gradstore.rehearsal import saved_bytes
from gradstore.task import Batch, Noise, tracked_parameters
from gradstore.testing.models import Benchmark
from gradstore_pipelines.settings import BuildSettings

SEED = 0
# vmap(grad) holds the full gradients of its examples; more than this at once would not fit a small machine.
_GRADIENT_BYTES = 1 << 30

Step = Callable[[], object]
Method = Callable[["Case"], Step]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model, a batch for it, and where and how precisely to compute."""

    benchmark: Benchmark
    batch: Batch
    device: torch.device
    dtype: torch.dtype
    d_sketch: int
    notes: list[str] = field(default_factory=list)
    "What a reader of the table must know about this case."

    @classmethod
    def make(cls, benchmark: Benchmark, n: int, device: torch.device, dtype: torch.dtype, d_sketch: int) -> Case:
        batch = benchmark.inputs(n, SEED).to(device)
        inputs = batch.inputs.to(dtype) if batch.inputs.is_floating_point() else batch.inputs
        cast = Batch(inputs, batch.labels, batch.keys)
        return cls(benchmark=benchmark, batch=cast, device=device, dtype=dtype, d_sketch=d_sketch)

    def model(self) -> nn.Module:
        """A copy of its own for every method: some freeze it, some hook it."""
        model = self.benchmark.model(SEED).to(self.device, self.dtype)
        for module in model.modules():
            if isinstance(module, nn.RNNBase) and self.device.type == "cuda":
                module.train()  # cuDNN has no backward in eval mode; without dropout the modes are the same
        return model

    def tracked(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """The tracked parameters; all others are frozen."""
        model.requires_grad_(False)
        found = tracked_parameters(self.benchmark.task, model, self.benchmark.parameters)
        for parameter in found.values():
            parameter.requires_grad_(True)
        return found


class Losses(nn.Module):
    """The task's loss as a module whose output is one loss an example."""

    def __init__(self, case: Case, model: nn.Module) -> None:
        super().__init__()
        self.task, self.model = case.benchmark.task, model

    def forward(self, inputs: Tensor, labels: Tensor | None, keys: Tensor) -> Tensor:
        return self.task.loss(self.model, Batch(inputs, labels, keys), Noise(keys, SEED))


def floor(case: Case) -> Step:
    """One plain forward and backward: mean loss, gradients of all parameters. Everything is measured in these."""
    model = case.model()
    losses, parameters = Losses(case, model), list(model.parameters())
    batch = case.batch
    return lambda: torch.autograd.grad(losses(batch.inputs, batch.labels, batch.keys).mean(), parameters)


def engine(case: Case) -> Step:
    """Sketches, exact norms and losses as a build computes them, block by block; without the pass for the latents."""
    task, model = case.benchmark.task, case.model()
    built = GradientEngine(task, model, case.benchmark.parameters, d_sketch=case.d_sketch, seed=SEED)
    built.prepare(case.batch[:4])
    settings = BuildSettings(source=Path("data"), store=Path("store"), device=case.device.type)
    rows = settings.block(1_000_000, saved_bytes(task, case.model(), case.batch[:4]))
    blocks = [case.batch[start : start + rows] for start in range(0, len(case.batch), rows)]

    def step() -> list[tuple[Tensor, ...]]:
        collected = (built.collect(block) for block in blocks)
        return [(losses, sink.whole_sketch(), sink.total_sq_norms()) for losses, sink in collected]

    return step


def capture_only(case: Case) -> Step:
    """Forward, and backward to the outputs of the modules that hold tracked parameters: no weight gradient at all."""
    model = case.model()
    owners = {model.get_submodule(name.rpartition(".")[0]) for name in case.tracked(model)}
    losses, batch = Losses(case, model), case.batch
    edges: list[GradientEdge] = []

    def record(module: nn.Module, args: Any, output: Any) -> None:
        edges.extend(get_gradient_edge(tensor) for tensor in _tensors(output) if tensor.requires_grad)

    for owner in owners:
        owner.register_forward_hook(record)

    def step() -> tuple[Tensor | None, ...]:
        edges.clear()
        total = losses(batch.inputs, batch.labels, batch.keys).sum()
        return torch.autograd.grad(total, edges, allow_unused=True)

    return step


def _tensors(output: Any) -> Iterator[Tensor]:
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, tuple | list):
        for part in output:
            yield from _tensors(part)


def vmap_alone(case: Case) -> Step:
    """Full per-example gradients by `vmap(grad)`, and nothing done with them."""
    gradients = vmap_gradients(case)

    def step() -> None:
        for _ in gradients():
            pass

    return step


def vmap_gradients(case: Case) -> Callable[[], Iterator[dict[str, Tensor]]]:
    """Tracked gradients of the batch by `vmap(grad)`, as many examples at a time as fit 1 GiB.

    Attention in its plain form: vmap has no rule for the fused one and would loop over the examples.
    """
    model = case.model()
    losses = Losses(case, model)
    tracked = {f"model.{name}": parameter.detach() for name, parameter in case.tracked(model).items()}

    def loss(parameters: Mapping[str, Tensor], inputs: Tensor, labels: Tensor | None, key: Tensor) -> Tensor:
        one = (inputs[None], None if labels is None else labels[None], key[None])
        value: Tensor = functional_call(losses, dict(parameters), one)
        return value[0]

    per_example = vmap(grad(loss), in_dims=(None, 0, None if case.batch.labels is None else 0, 0))
    n_at_once = max(1, _GRADIENT_BYTES // sum(p.numel() * p.element_size() for p in tracked.values()))

    def gradients() -> Iterator[dict[str, Tensor]]:
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*batching rule.*")
            for start in range(0, len(case.batch), n_at_once):
                rows = case.batch[start : start + n_at_once]
                yield per_example(tracked, rows.inputs, rows.labels, rows.keys)

    return gradients
