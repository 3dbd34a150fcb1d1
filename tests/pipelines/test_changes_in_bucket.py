"""A store in a bucket: verified, forgotten from, grown; and it has the rows that one in a folder has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import gradstore
from gradstore.store import Store, verify
from gradstore.store.place import place_of
from gradstore.store.repair import repair
from gradstore_pipelines.append import append
from gradstore_pipelines.append_settings import AppendSettings
from gradstore_pipelines.build_store import build
from gradstore_pipelines.recompute import recompute
from gradstore_pipelines.settings import BuildSettings
from tests.buckets import s3

TOY = f"{Path(__file__).parent / 'toy_task.py'}:Toy"
ROWS = np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3(tmp_path_factory.mktemp("cache")) as url:
        yield url


def test_a_store_in_a_bucket_is_forgotten_from_grown_verified_and_mended(bucket: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS[:140])
    np.save(tmp_path / "b.npy", ROWS[140:])
    for store in (f"{bucket}/s", tmp_path / "s"):
        small = {"model": TOY, "epochs": 1, "n_checkpoints": 1, "sketch_dim": 16, "shard_rows": 64, "device": "cpu"}
        build(BuildSettings(source=tmp_path / "a.npy", store=store, **small))  # type: ignore[arg-type]
        append(AppendSettings(store=store, source=tmp_path / "b.npy", device="cpu"))
    remote, local = Store.open(f"{bucket}/s"), Store.open(tmp_path / "s")
    np.testing.assert_array_equal(remote.unit_sketches(0, 0, 200), local.unit_sketches(0, 0, 200))
    assert remote.ids(0, 200) == local.ids(0, 200)
    assert remote.forget(["3", "150"]) == local.forget(["3", "150"]) == 2
    assert gradstore.open(remote.location).rank().equals(gradstore.open(local.location).rank())
    report = verify(remote)
    assert (report.problems, report.leftovers) == ((), ())
    assert recompute(remote, 8)[1]["same"] == 8
    place = place_of(f"{bucket}/s")
    place.write("norms/c.0.1", place.read("norms/c.0.1")[:-1] + b"?")
    assert repair(remote, verify(remote)).discarded == ((0, 1),)
    assert append(AppendSettings(store=f"{bucket}/s", device="cpu")).sketched_shards == 1
    assert verify(Store.open(f"{bucket}/s")).ok
