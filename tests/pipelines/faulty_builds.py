"""A small data set of which one example is marked, and builds of it whose faults are planned (`faulty_task`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradstore.models.user_task import load_task
from gradstore_pipelines.settings import BuildSettings

TASK = f"{Path(__file__).parent / 'faulty_task.py'}:Faulty"
N, MARKED = 640, 300
"""examples, and which of them is marked: in shard 4 of 10"""


def make_data(folder: Path) -> Path:
    """Data, weights, and a folder for faults."""
    rows = np.random.default_rng(0).integers(0, 255, (N, 8, 8), np.uint8)
    rows[MARKED, 0, 0] = 255
    np.save(folder / "rows.npy", rows)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save({"model": load_task(TASK).build().state_dict(), "lr": 0.1}, folder / "weights.pt")
    (folder / "faults").mkdir()
    return folder


def settings_for(folder: Path, store: Path, **changes: Any) -> BuildSettings:
    """One checkpoint, ten shards."""
    values: dict[str, Any] = {
        "sketch_dim": 32,
        "shard_rows": 64,
        "checkpoints": (str(folder / "weights.pt"),),
    } | changes
    return BuildSettings(source=folder / "rows.npy", store=store, model=TASK, **values)


def command_for(folder: Path, store: Path) -> list[str]:
    """The same on the command line."""
    words: list[object] = ["build", folder / "rows.npy", "--store", store, "--model", TASK, "--sketch-dim", 32]
    return [str(word) for word in [*words, "--shard-rows", 64, "--checkpoints", folder / "weights.pt"]]


def content(store: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {str(f.relative_to(store)): f.read_bytes() for f in sorted(store.rglob("*")) if f.is_file()}
