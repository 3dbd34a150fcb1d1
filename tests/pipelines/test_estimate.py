"""A dry run writes nothing and counts what the build then makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gradstore_pipelines.build_store import build
from gradstore_pipelines.estimate import estimate
from gradstore_pipelines.settings import BuildSettings


def test_the_estimate_counts_what_the_build_makes(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).random((200, 12), np.float32))
    settings = BuildSettings(
        source=tmp_path / "rows.npy", store=tmp_path / "store", epochs=2, n_checkpoints=2, sketch_dim=64
    )
    guess = estimate(settings)
    assert not (tmp_path / "store").exists()
    build(settings)
    arrays = [f for name in ("sketches", "norms", "losses", "latents") for f in (tmp_path / "store" / name).glob("c.*")]
    commits = list((tmp_path / "store" / "commits").iterdir())
    checkpoints = list((tmp_path / "store" / "checkpoints").glob("*.safetensors"))
    made = sum(f.stat().st_size for f in [*arrays, *checkpoints])
    assert made - 4096 * len(checkpoints) < guess.n_bytes <= made  # a checkpoint's file has a header
    assert guess.n_files == len(arrays) + len(commits) + len(checkpoints)
    assert guess.n_shards == len(commits)
    assert guess.seconds_training > 0
    assert guess.seconds_sketching > 0
