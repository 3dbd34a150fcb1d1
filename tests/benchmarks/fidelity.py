"""Sketch quality: gradstore's projection beside a dense one of random signs, at equal length, on five trained models.

    python tests/benchmarks/fidelity.py --seeds 5
    python tests/benchmarks/fidelity.py --models ae lstm --examples 128

Each model is trained for some steps on inputs made for it; then the exact gradients of fresh examples are taken, each
alone through plain autograd, and inner products of all pairs are compared with those of their sketches by Pearson's
correlation. Both projections are redrawn for every seed; the difference is given with its standard error over seeds.

The dense projection (Johnson & Lindenstrauss with Rademacher's signs, Achlioptas 2003) of a gradient of 11 M numbers
to 4,096 has 46 G entries: they come from a seeded generator a block of coordinates at a time and are never held
whole. Its first k columns, rescaled, are a dense projection to k, so one pass serves all lengths.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from gradstore.devices import usable_device
from gradstore.sketch.gram import GradientSample, SketchLengths
from gradstore.task import Batch, Noise, Task, tracked_parameters
from gradstore.testing.models import BENCHMARKS, Benchmark

LENGTHS = (256, 1024, 4096)
_SIGNS = 1 << 26  # entries of the dense projection in memory at a time: 256 MB
_TRAINING_BATCH, _LEARNING_RATE = 32, 1e-3
_UNSEEN = 1_000_000  # seed of the examples compared: no training step has it

Pearsons = dict[int, float]


def main() -> None:
    """Measure the models and print a Markdown table."""
    options = _options()
    device = usable_device(options.device)
    print("| model | tracked numbers | k | gradstore | dense | difference |\n|---|---|---|---|---|---|")
    for benchmark in BENCHMARKS:
        if benchmark.name in options.models:
            for line in _lines(benchmark, options, device):
                print(line, flush=True)


def _options() -> argparse.Namespace:
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--examples", type=int, default=64, help="whose exact gradients are held in memory at once")
    parser.add_argument("--steps", type=int, default=100, help="of training")
    parser.add_argument("--device", default="auto")
    return parser.parse_args()


def _lines(benchmark: Benchmark, options: argparse.Namespace, device: str) -> Iterator[str]:
    model = trained(benchmark, options.steps, device)
    sample = sample_of(benchmark, model, benchmark.inputs(options.examples, _UNSEEN).to(device))
    gradients = flat_gradients(sample)
    exact = _gram(gradients)
    found = []
    for seed in range(options.seeds):
        sketches = _tensors(SketchLengths(sample, LENGTHS, seed, stream=0).sketch(gradients))
        found.append((_pearsons(exact, sketches), _pearsons(exact, dense_sketches(gradients, seed))))
        print(benchmark.name, seed, *found[-1], file=sys.stderr, flush=True)
    for k in LENGTHS:
        ours, dense = np.array([(a[k], b[k]) for a, b in found]).T
        error = (ours - dense).std(ddof=1) / np.sqrt(len(found)) if len(found) > 1 else np.nan
        yield (
            f"| {benchmark.title} | {sample.n_numbers:,} | {k} | {ours.mean():.4f} | {dense.mean():.4f} | "
            f"{(ours - dense).mean():+.4f} ± {error:.4f} |"
        )


def trained(benchmark: Benchmark, steps: int, device: str) -> nn.Module:
    """The model after some steps of Adam, in eval mode."""
    model = benchmark.model(seed=0).to(device).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=_LEARNING_RATE)
    for step in range(steps):
        batch = benchmark.inputs(_TRAINING_BATCH, seed=step).to(device)
        optimizer.zero_grad()
        torch.autograd.backward(benchmark.task.loss(model, batch, Noise(batch.keys, step)).mean())
        optimizer.step()
    return model.eval()


def sample_of(benchmark: Benchmark, model: nn.Module, batch: Batch) -> GradientSample:
    """Exact gradients with respect to the tracked parameters, one example at a time."""
    tracked = tracked_parameters(benchmark.task, model, benchmark.parameters)
    gradients = _Gradients(benchmark.task, model, tracked, batch)
    return GradientSample(len(batch), tracked, gradients)


class _Gradients:
    def __init__(self, task: Task, model: nn.Module, tracked: Mapping[str, nn.Parameter], batch: Batch) -> None:
        self._task, self._model, self._tracked, self._batch = task, model, tracked, batch

    def __call__(self, rows: range) -> Iterator[dict[str, Tensor]]:
        for row in rows:
            one = self._batch[row : row + 1]
            loss = self._task.loss(self._model, one, Noise(one.keys, 0)).sum()
            grads = torch.autograd.grad(loss, list(self._tracked.values()), allow_unused=True, materialize_grads=True)
            yield {name: grad.to_dense() for name, grad in zip(self._tracked, grads, strict=True)}


def flat_gradients(sample: GradientSample) -> Float[Tensor, "example number"]:
    """All of them in memory."""
    rows = torch.empty(sample.n_examples, sample.n_numbers, dtype=sample.dtype, device=sample.device)
    for row, gradient in zip(rows, sample.gradients(range(sample.n_examples)), strict=True):
        torch.cat([gradient[name].flatten() for name in sample.parameters], out=row)
    return rows


def dense_sketches(gradients: Float[Tensor, "example number"], seed: int) -> dict[int, Tensor]:
    """Sketches by a dense projection of random signs, by length."""
    longest, device = max(LENGTHS), gradients.device
    generator = torch.Generator(device).manual_seed(seed)
    total = torch.zeros(len(gradients), longest, dtype=gradients.dtype, device=device)
    step = max(1, _SIGNS // longest)
    for start in range(0, gradients.shape[1], step):
        part = gradients[:, start : start + step]
        total += part @ _signs(part.shape[1], longest, generator).to(part.dtype)
    return {k: total[:, :k] / k**0.5 for k in LENGTHS}


def _signs(n_rows: int, n_columns: int, generator: torch.Generator) -> Float[Tensor, "row column"]:
    """+-1 from the bits of random bytes."""
    device = generator.device
    drawn = torch.randint(256, (n_rows, n_columns // 8, 1), dtype=torch.uint8, device=device, generator=generator)
    bits = (drawn >> torch.arange(8, dtype=torch.uint8, device=device)) & 1
    return bits.flatten(1).to(torch.float32).mul_(2).sub_(1)


def _tensors(sketches: Mapping[int, np.ndarray]) -> dict[int, Tensor]:
    return {k: torch.from_numpy(rows) for k, rows in sketches.items()}


def _gram(rows: Float[Tensor, "example number"]) -> Float64[np.ndarray, "example example"]:
    """Inner products summed in float64."""
    total = torch.zeros(len(rows), len(rows), dtype=torch.float64, device=rows.device)
    for part in torch.split(rows, 1 << 16, dim=1):
        total.addmm_(part.double(), part.double().T)
    return total.cpu().numpy()


def _pearsons(exact: Float64[np.ndarray, "example example"], sketches: Mapping[int, Tensor]) -> Pearsons:
    pairs = np.triu_indices(len(exact), k=1)
    return {k: float(np.corrcoef(exact[pairs], _gram(rows)[pairs])[0, 1]) for k, rows in sketches.items()}


if __name__ == "__main__":
    main()
