from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gradstore.errors import QueryError
from gradstore.search import FaissFlat, FaissIvfPq, FaissRaBitQ
from gradstore.search.faiss_build import needed
from gradstore.search.faiss_index import INDEX_TYPES
from gradstore.search.faiss_kinds import KINDS, kind_named
from gradstore.search.vectors import Vectors
from gradstore.testing.approximate_kit import clustered_rows
from gradstore.testing.index_kit import MemoryRows
from gradstore.testing.store_kit import store_of


@pytest.mark.parametrize("kind", INDEX_TYPES)
def test_the_estimate_of_the_finished_index_is_that_of_its_file(kind: str, tmp_path: Path) -> None:
    rows = clustered_rows(3000, n_checkpoints=1, d_sketch=128)
    INDEX_TYPES[kind].build(rows).save(tmp_path / "index")
    written = (tmp_path / "index").stat().st_size
    assert 0.9 * written <= needed(KINDS[kind], rows, 128).finished <= 1.6 * written


def test_an_index_that_would_take_more_than_allowed_is_refused_before_a_row_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = MemoryRows.random(3000, d_sketch=8)
    monkeypatch.setattr(MemoryRows, "unit_sketches", None)
    big = replace(rows, units=np.broadcast_to(rows.units[:, :1, :1], (2, 3000, 30000)))
    with pytest.raises(
        QueryError, match=r"flat index of memory .* 300 MB were allowed. Allow more \(--memory \d.*MB\)"
    ):
        FaissFlat.build(big, memory=300 * 10**6)
    with pytest.raises(QueryError, match="or use --kind rabitq"):
        FaissFlat.build(big, memory=300 * 10**6)


def test_the_memory_that_a_refusal_names_is_enough() -> None:
    rows = MemoryRows.random(300)
    with pytest.raises(QueryError) as caught:
        FaissRaBitQ.build(rows, memory=1)
    megabytes = float(str(caught.value).split("--memory ")[1].split("MB")[0])
    assert FaissRaBitQ.build(rows, memory=int(megabytes * 1e6)).recall


def test_less_memory_makes_a_smaller_training_sample_of_the_same_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, sizes = clustered_rows(3000), []
    read = Vectors.rows_at

    def recorded(self: Vectors, store: MemoryRows, norms: np.ndarray, indices: np.ndarray) -> np.ndarray:
        sizes.append((len(indices), int(indices.sum())))
        return read(self, store, norms, indices)

    monkeypatch.setattr(Vectors, "rows_at", recorded)
    least = needed(KINDS["ivf-pq"], rows, 64).building
    for memory in (least, 10**9, 10**9):
        FaissIvfPq.build(rows, memory=memory)
    assert sizes[0][0] < sizes[1][0]
    assert sizes[1] == sizes[2]


@pytest.mark.parametrize("kind", ["rabitq", "flat"])
def test_building_stays_within_the_stated_memory(kind: str, tmp_path: Path) -> None:
    """Of a process that builds: its peak above what it had after a first, tiny index."""
    gradients = np.random.default_rng(0).standard_normal((1, 30000, 256)).astype(np.float32)
    store_of(tmp_path / "store", gradients, shard_rows=4096)
    store_of(tmp_path / "tiny", gradients[:, :600], shard_rows=4096)
    script = f"""
import sys, resource
from gradstore.search.faiss_build import needed
from gradstore.search.faiss_index import INDEX_TYPES
from gradstore.store import Store
kind = INDEX_TYPES[{kind!r}]
kind.build(Store.open(sys.argv[2]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store = Store.open(sys.argv[1])
kind.build(store)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024, needed(kind.kind, store, 256).building)
"""
    paths = [str(tmp_path / "store"), str(tmp_path / "tiny")]
    ran = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True)
    taken, stated = map(int, ran.stdout.split())
    assert taken <= stated


def test_a_kind_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(QueryError, match=r"no index of kind 'annoy'. Use one of flat, rabitq, ivf-sq8, ivf-pq, hnsw"):
        kind_named("annoy")
