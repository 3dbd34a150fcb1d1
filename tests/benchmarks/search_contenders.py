"""What takes part in the search benchmark: one function a contender, from a case to what is timed.

To add one, write a function `Case -> Callable[[], object]` and put it into `CONTENDERS` under its title, with the
floor that its time is divided by. What it prepares before it returns (an index, an array) is not timed.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float32

from gradstore.search import QuerySketches, exact_both_ends, exact_search
from gradstore.store import Manifest, SetRows, ShardRows, Store

K = 100
N_QUERIES = 256
_PAIRS = 1000  # the loops take so many queries and so many examples
_LOADED = 2000  # pairs whose files are really loaded; the rest is extrapolated
_SHARD_ROWS = 32_768
_GEMM_ROWS = 2048

Run = Callable[[], object]


@dataclass
class Case:
    """A store on disk, and the same rows in memory for those who need them there."""

    title: str
    store: Store

    @cached_property
    def queries(self) -> QuerySketches:
        return _queries(self.store, N_QUERIES)

    @cached_property
    def one(self) -> QuerySketches:
        return _queries(self.store, 1)

    @cached_property
    def stored_bytes(self) -> np.ndarray[Any, np.dtype[np.uint64]]:
        """Every sketch as the store has it, in memory."""
        blocks = [
            self.store.unit_sketches(t, *of) for t in range(self.store.n_checkpoints) for of in self.store.blocks()
        ]
        return np.concatenate(blocks).reshape(-1).view(np.uint64)

    @cached_property
    def vectors(self) -> Float32[np.ndarray, "example d"]:
        """Raw gradients' sketches of all checkpoints side by side, times sqrt(eta), in float32."""
        store = self.store
        found = np.empty((store.n_examples, store.n_checkpoints * store.d_sketch), np.float32)
        for t, eta in enumerate(store.learning_rates):
            weights = (np.sqrt(eta) * store.norms(t)).astype(np.float32)[:, None]
            for start, stop in store.blocks():
                part = found[start:stop, t * store.d_sketch : (t + 1) * store.d_sketch]
                np.multiply(store.unit_sketches(t, start, stop), weights[start:stop], out=part)
        return found

    def asked(self, queries: QuerySketches) -> Float32[np.ndarray, "query d"]:
        """Queries in the form of `vectors`."""
        weights = np.sqrt(self.store.learning_rates)[:, None] * queries.norms
        return np.concatenate(list(queries.unit * weights[..., None]), axis=1).astype(np.float32)


class Contender(NamedTuple):
    """What is timed, and what its time is compared with."""

    prepare: Callable[[Case], Run]
    floor: str
    repeated: bool = True
    """whether it is timed in every round; a slow one is timed once"""
    scale: Callable[[Case], float] = lambda case: 1.0
    """what its time is multiplied by: how much of the work it left out"""


def make_store(path: Path, n_examples: int, d_sketch: int, n_checkpoints: int) -> Store:
    """Random gradients: directions uniform, norms log-normal."""
    manifest = Manifest(
        n_examples=n_examples,
        d_sketch=d_sketch,
        d_latent=1,
        shard_rows=_SHARD_ROWS,
        learning_rates=tuple(0.1 / (t + 1) for t in range(n_checkpoints)),
        label_names=None,
        settings={"made_by": "benchmark"},
        provenance={},
        parameter_sets=("all",),
    )
    store = Store.create(path, manifest, _names(n_examples))
    for checkpoint, shard in store.pending():
        size = len(store.shard_range(shard))
        random = np.random.default_rng((checkpoint, shard))
        sketches = random.standard_normal((size, d_sketch), dtype=np.float32)
        sketches *= np.exp(random.standard_normal((size, 1), dtype=np.float32) / 2)
        rows = SetRows(sketches, np.square(sketches).sum(axis=1, dtype=np.float64))
        nothing = np.zeros(size, np.float32)
        store.write_shard(checkpoint, shard, ShardRows({"all": rows}, nothing, nothing[:, None]))
    return store


def _names(n_examples: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, n_examples, 1 << 16):
        size = min(1 << 16, n_examples - start)
        ids = pa.array([f"x{row}" for row in range(start, start + size)], pa.string())
        yield pa.RecordBatch.from_pydict(
            {"id": ids, "label": pa.nulls(size, pa.int32()), "path": pa.nulls(size, pa.string())}
        )


def _queries(store: Store, n_queries: int) -> QuerySketches:
    shape = (store.n_checkpoints, n_queries, store.d_sketch)
    sketches = np.random.default_rng(n_queries).standard_normal(shape)
    return QuerySketches.from_sketches(sketches, np.square(sketches).sum(axis=2))


# Floors


def bare_gemm(case: Case) -> Run:
    """The float32 product alone, rows in memory, results thrown away; by blocks, which is faster than at once."""
    rows, asked = case.vectors, case.asked(case.queries).T
    out = np.empty((_GEMM_ROWS, N_QUERIES), np.float32)

    def run() -> None:
        for start in range(0, len(rows), _GEMM_ROWS):
            block = rows[start : start + _GEMM_ROWS]
            np.matmul(block, asked, out=out[: len(block)])

    return run


def memory_once(case: Case) -> Run:
    """The stored bytes, in memory, summed as 64-bit integers."""
    stored = case.stored_bytes
    return lambda: stored.sum()


# gradstore


def exact_batch(case: Case) -> Run:
    return lambda: exact_search(case.store, case.queries, K)


def exact_batch_both_ends(case: Case) -> Run:
    return lambda: exact_both_ends(case.store, case.queries, K)


def exact_one(case: Case) -> Run:
    return lambda: exact_search(case.store, case.one, K)


# Peers


def numpy_batch(case: Case) -> Run:
    """One product of everything, then a partial sort."""
    return lambda: _numpy_top(case.vectors, case.asked(case.queries))


def _numpy_top(rows: Float32[np.ndarray, "example d"], asked: Float32[np.ndarray, "query d"]) -> np.ndarray[Any, Any]:
    scores = asked @ rows.T
    best = np.argpartition(scores, -K, axis=1)[:, -K:]
    order = np.take_along_axis(scores, best, 1).argsort(axis=1)[:, ::-1]
    return np.take_along_axis(best, order, 1)


def _flat(case: Case) -> Any:
    import faiss

    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(case.vectors.shape[1])
    index.add(case.vectors)
    return index


def faiss_batch(case: Case) -> Run:
    index, asked = _flat(case), case.asked(case.queries)
    return lambda: index.search(asked, K)


def faiss_one(case: Case) -> Run:
    index, asked = _flat(case), case.asked(case.one)
    return lambda: index.search(asked, K)


def bergson_opponents(case: Case) -> Run:
    """A flat index fetched whole, of which the last K are wanted."""
    index, asked = _flat(case), case.asked(case.one)
    return lambda: tuple(found[:, -K:] for found in index.search(asked, index.ntotal))


def exact_one_opponents(case: Case) -> Run:
    return lambda: exact_search(case.store, case.one, K, largest=False)


def small_exact(case: Case) -> Run:
    """All scores of 1,000 queries with 1,000 examples, from memory-sized rows of the store."""
    from gradstore.search import Filter, stored_queries

    first = Filter.of_rows(range(_PAIRS), case.store.n_examples)
    queries = stored_queries(case.store, np.arange(_PAIRS))
    return lambda: exact_search(case.store, queries, K, filter=first)


def pair_loop(case: Case) -> Run:
    """A dot product a pair and checkpoint, as captum's TracInCP sums them, gradients in memory."""
    rows = [torch.from_numpy(row) for row in case.vectors[:_PAIRS]]

    def run() -> list[list[float]]:
        return [[float((query * row).sum()) for row in rows] for query in rows]

    return run


def file_loop(case: Case) -> Run:
    """A file a gradient, loaded for each pair, as lfxai does."""
    folder = tempfile.TemporaryDirectory()
    side = 1 + int(_LOADED**0.5)
    for number, row in enumerate(case.vectors[:side]):
        (Path(folder.name) / f"{number}.pkl").write_bytes(pickle.dumps(torch.from_numpy(row.copy())))

    def run() -> float:
        total, done = 0.0, 0
        for a in range(side):
            query = _loaded(folder.name, a)
            for b in range(side):
                total, done = total + float(query @ _loaded(folder.name, b)), done + 1
        return total

    return run


def _loaded(folder: str, number: int) -> torch.Tensor:
    found: torch.Tensor = pickle.loads((Path(folder) / f"{number}.pkl").read_bytes())
    return found


def _unloaded(case: Case) -> float:
    return float(_PAIRS**2 / (1 + int(_LOADED**0.5)) ** 2)


GEMM, MEMORY, ONE, SMALL = (
    "bare float32 GEMM, 256 queries",
    "reading the stored bytes in memory once",
    "exact, 1 query",
    "exact, 1,000 x 1,000",
)
CONTENDERS: dict[str, Contender] = {
    GEMM: Contender(bare_gemm, GEMM),
    MEMORY: Contender(memory_once, MEMORY),
    "exact, 256 queries": Contender(exact_batch, GEMM),
    "exact, 256 queries, both ends": Contender(exact_batch_both_ends, GEMM),
    ONE: Contender(exact_one, MEMORY),
    "exact, 1 query, opponents": Contender(exact_one_opponents, MEMORY),
    SMALL: Contender(small_exact, SMALL),
}
PEERS: dict[str, Contender] = {
    "numpy: product and argpartition, 256 queries": Contender(numpy_batch, GEMM),
    "faiss IndexFlatIP, 256 queries": Contender(faiss_batch, GEMM),
    "faiss IndexFlatIP, 1 query": Contender(faiss_one, MEMORY),
    "bergson's way: all N fetched, 1 query, opponents": Contender(bergson_opponents, MEMORY),
    "captum's way: a dot product a pair, 1,000 x 1,000": Contender(pair_loop, SMALL, repeated=False),
    "lfxai's way: a file load a pair, 1,000 x 1,000 (extrapolated)": Contender(
        file_loop, SMALL, repeated=False, scale=_unloaded
    ),
}


def chosen(peers: bool, words: Iterable[str]) -> dict[str, Contender]:
    """Contenders whose title holds one of these words, all without any; and the floors they need."""
    every = {**CONTENDERS, **(PEERS if peers else {})}
    words = list(words)
    wanted = {title for title in every if not words or any(word in title for word in words)}
    floors = {every[title].floor for title in wanted}
    return {title: contender for title, contender in every.items() if title in wanted | floors}
