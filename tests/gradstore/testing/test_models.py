from __future__ import annotations

import pytest
import torch

from gradstore.gradients import GradientEngine
from gradstore.task import Batch, Noise, Task, tracked_parameters
from gradstore.testing.models import BENCHMARKS, Benchmark, ConvAutoencoder, ConvVAE, ResNet18
from gradstore.testing.task_kit import TaskContract

# Counted by hand: weights and biases of every tracked layer.
N_TRACKED = {
    "ae": (8 * 9 + 8) + (16 * 72 + 16) + 2 * 16 + (32 * 144 + 32) + (128 * 288 + 128) + (4 * 128 + 4),
    "vae": (32 * 16 + 32) + 2 * (32 * 512 + 32) + (256 * 512 + 256) + (256 * 256 + 256) + (20 * 256 + 20),
    "lstm": 256 * (1 + 64 + 2) + 256 * (64 + 64 + 2),
    "transformer": 65 * 256 + 4 * (4 * (256 * 256 + 256) + 2 * 256 * 1024 + 1024 + 256 + 4 * 256) + 64 * 257,
    "resnet": (3 * 64 * 9 + 2 * 64)
    + sum(
        9 * (d_in + 3 * d_out) * d_out + 8 * d_out + (d_in != d_out) * (d_in * d_out + 2 * d_out)
        for d_in, d_out in [(64, 64), (64, 128), (128, 256), (256, 512)]
    )
    + (10 * 512 + 10),
}


def n_examples(benchmark: Benchmark) -> int:
    return 2 if benchmark.name == "resnet" else 3


every_benchmark = pytest.mark.parametrize("benchmark_", BENCHMARKS, ids=lambda b: b.name)


@every_benchmark
def test_tracks_as_many_parameters_as_the_architecture_has(benchmark_: Benchmark) -> None:
    tracked = tracked_parameters(benchmark_.task, benchmark_.model(), benchmark_.parameters)
    assert sum(p.numel() for p in tracked.values()) == N_TRACKED[benchmark_.name]


@every_benchmark
def test_the_engine_agrees_with_autograd_on_it(benchmark_: Benchmark) -> None:
    batch = benchmark_.inputs(n_examples(benchmark_), seed=0)
    engine = GradientEngine(benchmark_.task, benchmark_.model(), benchmark_.parameters, d_sketch=64, seed=0)
    coverage = engine.prepare(batch)
    assert coverage.n_parameters == N_TRACKED[benchmark_.name]


@every_benchmark
def test_inputs_belong_to_their_seed(benchmark_: Benchmark) -> None:
    first, again, other = (benchmark_.inputs(4, seed).inputs for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@every_benchmark
def test_no_two_examples_are_alike(benchmark_: Benchmark) -> None:
    assert len({row.numpy().tobytes() for row in benchmark_.inputs(16, seed=0).inputs}) == 16


@every_benchmark
def test_the_model_belongs_to_its_seed(benchmark_: Benchmark) -> None:
    before = torch.random.get_rng_state()
    first, again = (torch.nn.utils.parameters_to_vector(benchmark_.model(3).parameters()) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_group_norm_has_as_many_parameters_as_batch_norm() -> None:
    model = ResNet18(norm="group").build()
    assert sum(p.numel() for p in model.parameters()) == N_TRACKED["resnet"]


@every_benchmark
def test_an_example_has_the_same_loss_alone_and_in_a_batch(benchmark_: Benchmark) -> None:
    batch, model = benchmark_.inputs(n_examples(benchmark_), seed=0), benchmark_.model()
    rows = [batch[row : row + 1] for row in range(len(batch))]
    alone = torch.cat([benchmark_.task.loss(model, row, Noise(row.keys, 0)) for row in rows])
    torch.testing.assert_close(benchmark_.task.loss(model, batch, Noise(batch.keys, 0)), alone)


class TestConvAutoencoder(TaskContract):
    def task(self) -> Task:
        return ConvAutoencoder()

    def batch(self) -> Batch:
        return BENCHMARKS[0].inputs(3, seed=0)


class TestConvVAE(TaskContract):
    def task(self) -> Task:
        return ConvVAE()

    def batch(self) -> Batch:
        return BENCHMARKS[1].inputs(3, seed=0)
