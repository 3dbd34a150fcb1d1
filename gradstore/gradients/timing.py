"""What each route costs: the share of an engine's time that rules, `vmap` and the loop take."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import torch

from gradstore.gradients import fallback
from gradstore.gradients.coverage import How
from gradstore.gradients.engine import GradientEngine
from gradstore.task import Batch

_REPEATS = 3


def time_shares(engine: GradientEngine, batch: Batch) -> Mapping[How, float]:
    """Shares of 1 for the routes that are taken, the forward and backward pass counted with the rules.

    Best of a few runs after a first one that pays for set-up.
    """
    vmapped, looped = engine.coverage.by("vmap"), engine.coverage.by("loop")
    work: dict[How, Callable[[], object]] = {
        "rule": lambda: engine.by_rules(batch, engine.sink(len(batch)), engine.coverage)
    }
    if vmapped:
        work["vmap"] = lambda: fallback.emit(engine.vmapped(vmapped, batch), engine.sink(len(batch)), engine.dtype)
    if looped:
        work["loop"] = lambda: fallback.emit(engine.looped(looped, batch), engine.sink(len(batch)), engine.dtype)
    seconds = {how: min(_seconds(run) for _ in range(_REPEATS + 1)) for how, run in work.items()}
    return {how: value / sum(seconds.values()) for how, value in seconds.items()}


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
