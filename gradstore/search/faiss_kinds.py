"""The kinds of FAISS index: what each is made of, what it costs, and how hard it looks.

| kind | a row is | bytes a row of 512 | how it is searched |
|---|---|---|---|
| flat | float16 numbers | 1,024 | all rows |
| rabitq | one bit a coordinate (Gao & Long 2024, arXiv:2405.12497) | 72 | all rows, by table look-up |
| ivf-sq8 | 8 bits a coordinate, in cells | 528 | the rows of the nearest cells |
| ivf-pq | a byte for 8 coordinates, in cells | 80 | the rows of the nearest cells |
| hnsw | float16 numbers and a graph | 1,300 | a walk on the graph |

`effort` 1, 2, 4 or 8 multiplies the cells, steps or candidates looked at; building an index chooses the smallest that
finds enough (`gradstore.search.recall`). Candidates are scored again exactly (`gradstore.search.rerank`), so a coarse
code needs many of them, and a fine one few.

Why square-root many cells: 1,024 at a million rows keep k-means within seconds; finer cells take minutes for nothing
that one-bit codes do not do better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from gradstore.errors import MissingExtraError, QueryError
from gradstore.search import rabitq_codes
from gradstore.search.vectors import Layout

EFFORTS = (1, 2, 4, 8)
_LINKS = 32
_POINTS_PER_CELL = 64
_PQ_POINTS = 16384  # 64 for each of the 256 centroids of a byte


@dataclass(frozen=True)
class Kind:
    """A kind of index over `n` vectors of some `width`."""

    name: str
    layout: Layout
    make: Callable[[ModuleType, int, int], Any]
    """(faiss, width, n) -> an empty index"""
    row_bytes: Callable[[int], int]
    """width -> bytes of a row in the finished index"""
    training_rows: Callable[[int], int] = lambda n: 1
    """n -> rows that it learns from"""
    fixed_bytes: Callable[[int, int], int] = lambda width, n: 0
    """(width, n) -> bytes that are not a row's"""
    set_effort: Callable[[Any, int], None] = lambda index, effort: None
    """make a search look harder"""
    add_all: Callable[[ModuleType, Any, Iterable[Any], int], None] = lambda faiss, index, blocks, n: _add(index, blocks)
    """(faiss, index, blocks, n) -> all rows added"""
    fine: bool = True
    """whether its own order is good enough for few candidates to do"""

    def depth(self, k: int, effort: int) -> int:
        """Candidates that are scored again for k answers."""
        return (max(256, 2 * k) if self.fine else max(1000, 10 * k)) * effort


def import_faiss() -> ModuleType:
    """FAISS, when it is first needed.

    Raises:
        MissingExtraError: not installed, with the command that installs it.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingExtraError(
            f"Search indexes need FAISS, and it cannot be imported here ({error}). Run: pip install 'faiss-cpu>=1.13'. "
            "The exact search (--index exact) works without."
        ) from error
    found: ModuleType = faiss
    return found


def kind_named(name: str) -> Kind:
    """The kind of this name.

    Raises:
        QueryError: there is none; lists those there are.
    """
    if name not in KINDS:
        raise QueryError(f"There is no index of kind {name!r}. Use one of {', '.join(KINDS)}.")
    return KINDS[name]


def _add(index: Any, blocks: Iterable[Any]) -> None:
    for block in blocks:
        index.add(block)


def _n_cells(n: int) -> int:
    """A power of two near sqrt(n): 256 at 60,000 rows, 1,024 at a million; never more than the rows."""
    return 1 << max(0, min(12, round(n.bit_length() / 2)))


def _flat(faiss: ModuleType, width: int, n: int) -> Any:
    return faiss.IndexScalarQuantizer(width, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


def _rabitq(faiss: ModuleType, width: int, n: int) -> Any:
    if not hasattr(faiss, "IndexRaBitQFastScan"):
        raise MissingExtraError(
            f"FAISS {faiss.__version__} has no fast scan of RaBitQ codes. Run: pip install --upgrade 'faiss-cpu>=1.13'"
        )
    index = faiss.IndexRaBitQFastScan(width, faiss.METRIC_INNER_PRODUCT)
    index.qb = 4  # bits of the query: recall as with 8 (.998), a quarter faster
    return index


def _ivf_sq8(faiss: ModuleType, width: int, n: int) -> Any:
    coarse, code = faiss.IndexFlatL2(width), faiss.ScalarQuantizer.QT_8bit
    return _with_k_means(faiss.IndexIVFScalarQuantizer(coarse, width, _n_cells(n), code, faiss.METRIC_L2))


def _ivf_pq(faiss: ModuleType, width: int, n: int) -> Any:
    coarse = faiss.IndexFlatL2(width)
    index = faiss.IndexIVFPQ(coarse, width, _n_cells(n), _pq_bytes(width), 8, faiss.METRIC_L2)
    index.pq.cp.niter, index.pq.cp.min_points_per_centroid = 10, 1
    index.use_precomputed_table = -1  # the tables are as large as the codes, and gain nothing for few queries
    return _with_k_means(index)


def _pq_bytes(width: int) -> int:
    """64 at most: more are not supported on every GPU."""
    return max(1, min(64, width // 8))


def _with_k_means(index: Any) -> Any:
    index.cp.niter, index.cp.min_points_per_centroid = 10, 1  # 1: no warnings on stderr about small stores
    index.cp.max_points_per_centroid = _POINTS_PER_CELL
    return index


def _probe_cells(index: Any, effort: int) -> None:
    index.nprobe = max(1, index.nlist * effort // 16)


def _hnsw(faiss: ModuleType, width: int, n: int) -> Any:
    index = faiss.IndexHNSWSQ(width, faiss.ScalarQuantizer.QT_fp16, _LINKS, faiss.METRIC_L2)
    index.hnsw.efConstruction = 80
    return index


def _walk_further(index: Any, effort: int) -> None:
    index.hnsw.efSearch = 256 * effort


def _centroid_bytes(width: int, n: int) -> int:
    return 4 * width * (_n_cells(n) + 256)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("flat", "beside", _flat, row_bytes=lambda width: 2 * width),
        Kind(
            "rabitq",
            "rotated",
            _rabitq,
            row_bytes=lambda width: width // 8 + 8,
            training_rows=lambda n: 4096,  # it learns a mean
            add_all=rabitq_codes.add_all,
            fine=False,
        ),
        Kind(
            "ivf-sq8",
            "lifted",
            _ivf_sq8,
            row_bytes=lambda width: width + 8,
            training_rows=lambda n: _POINTS_PER_CELL * _n_cells(n),
            fixed_bytes=_centroid_bytes,
            set_effort=_probe_cells,
        ),
        Kind(
            "ivf-pq",
            "lifted",
            _ivf_pq,
            row_bytes=lambda width: _pq_bytes(width) + 8,
            training_rows=lambda n: max(_PQ_POINTS, _POINTS_PER_CELL * _n_cells(n)),
            fixed_bytes=_centroid_bytes,
            set_effort=_probe_cells,
            fine=False,
        ),
        Kind(
            "hnsw",
            "lifted",
            _hnsw,
            row_bytes=lambda width: 2 * width + 8 * _LINKS + 24,
            set_effort=_walk_further,
        ),
    )
}
