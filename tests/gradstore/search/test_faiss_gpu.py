"""Against a stand-in: FAISS's GPU functions over CPU indexes, with their limit of 2,048 neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from gradstore.search import FaissFlat, FaissIvfSq8, FaissRaBitQ, exact_search
from gradstore.search.faiss_index import FaissIndex
from gradstore.testing.approximate_kit import clustered_rows
from gradstore.testing.index_kit import random_queries


class Limited:
    """An index that behaves as one on a GPU."""

    def __init__(self, index: Any) -> None:
        self.index, self.asked = index, 0

    def add(self, vectors: Any) -> None:
        self.index.add(vectors)

    def search(self, vectors: Any, k: int) -> Any:
        if k > 2048:
            raise RuntimeError("GPU index only supports min/max-K selection up to 2048")
        self.asked = k
        return self.index.search(vectors, k)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A FAISS with one GPU; what it was given."""
    seen: dict[str, Any] = {}

    class Config:
        useFloat16, device = False, -1  # noqa: N815 - FAISS's name

    def flat(resources: Any, width: int, config: Config) -> Limited:
        seen["flat"] = (config.useFloat16, config.device)
        return Limited(faiss.IndexFlatIP(width))

    def moved(resources: Any, number: int, index: Any, options: Any) -> Limited:
        seen["cells"] = (options.useFloat16, number, index.nprobe)
        return Limited(index)

    fakes: dict[str, Any] = {"get_num_gpus": lambda: 1, "StandardGpuResources": object, "GpuIndexFlatConfig": Config}
    fakes |= {"GpuClonerOptions": Config, "GpuIndexFlatIP": flat, "index_cpu_to_gpu": moved}
    for name, fake in fakes.items():
        monkeypatch.setattr(faiss, name, fake, raising=False)
    return seen


def loaded(kind: type[FaissIndex], path: Path, device: str) -> FaissIndex:
    rows = clustered_rows(5000, n_checkpoints=1)
    kind.build(rows).save(path / "index")
    return kind.load(path / "index", rows, device)


def test_a_flat_index_moves_in_float16_and_answers_exactly(gpu: dict[str, Any], tmp_path: Path) -> None:
    index = loaded(FaissFlat, tmp_path, "cuda:0")
    rows = clustered_rows(5000, n_checkpoints=1)
    queries = random_queries(rows, 4)
    assert (index.is_on_gpu, gpu["flat"]) == (True, (True, 0))
    for k in (10, 1500, 3000):  # 3,000 are more than a GPU gives, and come from the exact search
        np.testing.assert_array_equal(index.search(queries, k).indices, exact_search(rows, queries, k).indices)


def test_cells_move_with_the_effort_that_was_chosen(gpu: dict[str, Any], tmp_path: Path) -> None:
    index = loaded(FaissIvfSq8, tmp_path, "cuda")
    assert index.is_on_gpu
    assert gpu["cells"] == (True, 0, max(1, 64 * index.effort // 16))


def test_kinds_without_a_gpu_form_and_gpus_that_are_not_there_stay_on_the_cpu(
    gpu: dict[str, Any], tmp_path: Path
) -> None:
    assert not loaded(FaissRaBitQ, tmp_path, "cuda").is_on_gpu
    assert not loaded(FaissFlat, tmp_path, "cuda:3").is_on_gpu
    assert not loaded(FaissFlat, tmp_path, "cpu").is_on_gpu


def test_an_index_that_does_not_fit_the_gpu_stays_on_the_cpu(
    gpu: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise RuntimeError("cudaMalloc error out of memory")

    monkeypatch.setattr(faiss, "GpuIndexFlatIP", full)
    index = loaded(FaissFlat, tmp_path, "cuda")
    queries = random_queries(clustered_rows(5000, n_checkpoints=1), 2)
    assert (index.is_on_gpu, index.search(queries, 10).indices.shape) == (False, (2, 10))


@pytest.mark.skipif(getattr(faiss, "get_num_gpus", lambda: 0)() == 0, reason="no GPU build of FAISS")
def test_a_real_gpu_answers_as_the_cpu(tmp_path: Path) -> None:
    rows = clustered_rows(5000, n_checkpoints=1)
    queries = random_queries(rows, 4)
    for kind in (FaissFlat, FaissIvfSq8):
        index = loaded(kind, tmp_path, "cuda")
        assert index.is_on_gpu
        assert index.search(queries, 10).indices.shape == (4, 10)
