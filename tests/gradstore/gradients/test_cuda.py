"""The same engine on CUDA: the CPU's numbers, the same bits in every run, and no waiting for the device."""

from __future__ import annotations

import pytest
import torch

from gradstore.gradients import GradientEngine
from gradstore.gradients.engine import SetGradients
from gradstore.testing.models import BENCHMARKS, Benchmark

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")

every_model = pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda benchmark: benchmark.name)
N_EXAMPLES = 6


def engine_on(device: str, benchmark: Benchmark) -> GradientEngine:
    model = benchmark.model().to(device)
    engine = GradientEngine(benchmark.task, model, benchmark.parameters, d_sketch=256, seed=1)
    engine.prepare(benchmark.inputs(3, 0).to(device))
    return engine


def run_on(device: str, benchmark: Benchmark) -> SetGradients:
    return engine_on(device, benchmark).run(benchmark.inputs(N_EXAMPLES, 2).to(device)).sets[benchmark.parameters]


@every_model
def test_cuda_gives_the_numbers_of_the_cpu(benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    on_cpu, on_cuda = run_on("cpu", benchmark), run_on("cuda", benchmark)
    torch.testing.assert_close(on_cuda.sq_norms.cpu(), on_cpu.sq_norms, rtol=1e-3, atol=0)
    error = (on_cuda.sketches.cpu() - on_cpu.sketches).norm(dim=1)
    assert bool((error <= 1e-3 * on_cpu.sq_norms.sqrt()).all())


@every_model
def test_the_fold_gives_the_same_bits_in_every_run(benchmark: Benchmark) -> None:
    engine = engine_on("cuda", benchmark)
    grad = torch.randn(4, *next(iter(engine.projection.hashes.values())).signs.shape, device="cuda")
    name = next(iter(engine.projection.hashes))
    first, second = engine.projection.buffer(4), engine.projection.buffer(4)
    for buffer in (first, second):
        buffer.add_dense(name, grad, swapped=engine.projection.is_swapped(name))
    assert torch.equal(first.result(), second.result())


def test_a_batch_never_waits_for_the_device() -> None:
    benchmark = BENCHMARKS[0]
    engine, batch = engine_on("cuda", benchmark), benchmark.inputs(N_EXAMPLES, 2).to("cuda")
    engine.run(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        engine.run(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
