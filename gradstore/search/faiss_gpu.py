"""FAISS indexes on a GPU, where a GPU build of FAISS is installed; nothing needs one.

| kind | on the GPU |
|---|---|
| flat | `GpuIndexFlatIP` with float16 rows |
| ivf-sq8 | the same cells and 8-bit rows |
| ivf-pq | the same cells and codes, look-up tables in float16 |
| rabitq, hnsw | FAISS has no such index there: they stay on the CPU |

FAISS's GPU indexes give at most 2,048 neighbours (faiss#2103); for more, the exact search answers. An index that does
not fit into the GPU's memory stays on the CPU.

What was run: this module against a stand-in for FAISS's GPU functions (`tests/gradstore/search/test_faiss_gpu.py`). No
machine with a GPU build of FAISS was at hand; the calls follow FAISS 1.15's interface. The exact search on CUDA is
torch and does not pass here.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

MOST_NEIGHBOURS = 2048
_BLOCK_ROWS = 65536


class OnGpu:
    """A GPU index together with the resources that it points to."""

    def __init__(self, index: Any, resources: Any) -> None:
        self._index, self._resources = index, resources

    def search(self, vectors: Any, k: int) -> tuple[Any, Any]:
        """Scores and row numbers, as every FAISS index gives them."""
        found: tuple[Any, Any] = self._index.search(vectors, k)
        return found


def on_gpu(faiss: ModuleType, index: Any, kind: str, device: str) -> OnGpu | None:
    """The index on that device; None where FAISS, this kind or the GPU's memory does not allow it."""
    place = _PLACE.get(kind)
    number = int(device.partition(":")[2] or 0)
    if place is None or number >= getattr(faiss, "get_num_gpus", lambda: 0)():
        return None
    try:
        resources = faiss.StandardGpuResources()
        return OnGpu(place(faiss, resources, index, number), resources)
    except RuntimeError:  # out of memory, or codes of a size that this GPU does not take
        return None


def _flat(faiss: ModuleType, resources: Any, index: Any, number: int) -> Any:
    """Rows are widened a block at a time and rounded back on the GPU: the same float16 numbers."""
    config = faiss.GpuIndexFlatConfig()
    config.useFloat16, config.device = True, number
    moved = faiss.GpuIndexFlatIP(resources, index.d, config)
    for start in range(0, index.ntotal, _BLOCK_ROWS):
        moved.add(index.reconstruct_n(start, min(_BLOCK_ROWS, index.ntotal - start)))
    return moved


def _cells(faiss: ModuleType, resources: Any, index: Any, number: int) -> Any:
    options = faiss.GpuClonerOptions()
    options.useFloat16 = True
    return faiss.index_cpu_to_gpu(resources, number, index, options)


_PLACE = {"flat": _flat, "ivf-sq8": _cells, "ivf-pq": _cells}
