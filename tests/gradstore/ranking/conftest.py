from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gradstore.store import Manifest, SetRows, ShardRows, Store

N, K, D, CHECKPOINTS, SHARD_ROWS = 60, 16, 3, 2, 25
ODD = 41
"""The example whose gradient, loss and latent are like no other's."""

MakeStore = Callable[..., Store]


def examples(n: int, *, labelled: bool) -> pa.RecordBatch:
    labels = [None if i % 7 == 0 else i % 3 for i in range(n)] if labelled else [None] * n
    paths = [None if i % 2 else f"images/{i}.png" for i in range(n)]
    columns: list[pa.Array[Any]] = [
        pa.array([f"x{i}" for i in range(n)]),
        pa.array(labels, pa.int32()),
        pa.array(paths, pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, names=["id", "label", "path"])


def shard_rows(rng: np.random.Generator, rows: range) -> ShardRows:
    """Gradients in four of sixteen directions, but for the odd one."""
    n = len(rows)
    sketches = np.zeros((n, K), dtype=np.float32)
    sketches[:, :4] = rng.normal(size=(n, 4))
    losses, latents = rng.uniform(1.0, 2.0, n), rng.normal(size=(n, D))
    if ODD in rows:
        at = rows.index(ODD)
        sketches[at], losses[at], latents[at] = np.eye(K)[9] * 3.0, 9.0, 50.0
    sq_norms = np.square(sketches, dtype=np.float64).sum(axis=1)
    variance = np.where(np.array(rows) == ODD, 7.0, 1.0)
    sets = {"all": SetRows(sketches, sq_norms, draw_sq_norms=sq_norms + variance)}
    return ShardRows(sets, losses.astype(np.float32), latents.astype(np.float32))


@pytest.fixture
def make_store(tmp_path: Path) -> MakeStore:
    def make(
        *,
        n: int = N,
        label_names: tuple[str, ...] | None = ("cat", "dog", "owl"),
        labelled: bool = True,
        shards: int | None = None,
        n_draws: int = 1,
    ) -> Store:
        manifest = Manifest(
            n_examples=n,
            d_sketch=K,
            d_latent=D,
            shard_rows=SHARD_ROWS,
            learning_rates=(0.1, 0.01),
            label_names=label_names,
            settings={"made": "for a test"},
            provenance={},
            parameter_sets=("all",),
            n_draws=n_draws,
        )
        store = Store.create(tmp_path / "store", manifest, [examples(n, labelled=labelled)])
        rng = np.random.default_rng(0)
        for checkpoint, shard in list(store.pending())[:shards]:
            store.write_shard(checkpoint, shard, shard_rows(rng, store.shard_range(shard)))
        return store

    return make


@pytest.fixture
def store(make_store: MakeStore) -> Store:
    return make_store()
