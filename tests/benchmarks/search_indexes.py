"""What approximate indexes find, how fast they answer, and what building one costs.

    python tests/benchmarks/search_indexes.py --examples 1000000 --kinds rabitq flat --out indexes.md

One query, k = 100, one thread, the store's files in the page cache; searches take turns, medians of a contender's time
divided by IndexFlatIP's in the same round. Recall is counted on queries that no index was tuned with, against the
exact search. `--spectrum` says how alike gradients are: 0.55 gives the 17 or so directions that count among 60,000
Fashion-MNIST gradients (participation ratio); 0 gives noise in all directions, where one-bit codes are at their worst.
`--store` measures a store that is there instead.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import faiss
import numpy as np
import torch
from jaxtyping import Float32
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from gradstore.search import exact_search, stored_queries
from gradstore.search import faiss_index as indexes
from gradstore.search.recall import in_words, tune_and_measure
from gradstore.search.rows import all_norms
from gradstore.search.vectors import Vectors
from gradstore.store import SetRows, ShardRows, Store
from gradstore.testing.store_kit import example_batches, manifest_of

K = 100
ROUNDS = 15
SHARD_ROWS = 16384


def main() -> None:
    """Measure and print a Markdown table."""
    options = _options()
    threadpool_limits(1)
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        made = options.store is None
        store = make_store(folder, options) if made else Store.open(options.store)
        text = "\n".join(_measured(store, options.kinds)) + "\n"
    finally:
        shutil.rmtree(folder)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=300_000)
    parser.add_argument("--d-sketch", type=int, default=512)
    parser.add_argument("--spectrum", type=float, default=0.55)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--kinds", nargs="+", default=["rabitq", "flat"], choices=list(indexes.INDEX_TYPES))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def make_store(folder: Path, options: argparse.Namespace) -> Store:
    """Gradients in 200 clusters with a falling spectrum, mixed over all coordinates; log-normal norms (sigma .6)."""
    random, n, d = np.random.default_rng(0), options.examples, options.d_sketch
    spectrum = (1.0 + np.arange(d, dtype=np.float32)) ** np.float32(-options.spectrum)
    centres = random.standard_normal((200, d), dtype=np.float32) * spectrum
    mixing = np.linalg.qr(random.standard_normal((d, d)))[0].astype(np.float32)
    manifest = manifest_of(n_examples=n, d_sketch=d, d_latent=1, shard_rows=SHARD_ROWS, learning_rates=(0.1,))
    store = Store.create(folder / "store", manifest, example_batches([f"x{row}" for row in range(n)]))
    for checkpoint, shard in store.pending():
        size = len(store.shard_range(shard))
        noise = random.standard_normal((size, d), dtype=np.float32) * spectrum
        gradients: Float32[np.ndarray, "row d_sketch"] = (centres[random.integers(0, 200, size)] + noise) @ mixing
        gradients *= np.exp(0.6 * random.standard_normal((size, 1), dtype=np.float32))
        rows = SetRows(gradients, np.square(gradients, dtype=np.float64).sum(axis=1))
        zeros = np.zeros((size, 1), np.float32)
        store.write_shard(checkpoint, shard, ShardRows({"all": rows}, zeros[:, 0], zeros))
    return store


def _measured(store: Store, kinds: list[str]) -> list[str]:
    n, t, d = store.n_examples, store.n_checkpoints, store.d_sketch
    reading, widening = _seconds(lambda: read_once(store)), _seconds(lambda: widen_once(store))
    lines = [
        f"{n} x {d} x {t} checkpoints, FAISS {faiss.__version__}, one thread; reading the rows once {reading:.2f} s,"
    ]
    lines += [
        f"as float32 {widening:.2f} s",
        "",
        "| index | one query, IndexFlatIP / it | exact / it | ms | recall@100 |",
    ]
    lines[-1] += " build s | / reading | / as float32 | measuring s | as the card says |"
    lines.append("|" + "---|" * 10)
    flat = flat_ip(store)
    built = [(kind, *build(store, kind)) for kind in kinds]
    return lines + [_line(store, flat, *one, reading, widening) for one in built]


def _line(
    store: Store, flat: Any, kind: str, index: indexes.FaissIndex, building: float, measuring: float, *reads: float
) -> str:
    asked = np.random.default_rng(99).choice(store.n_examples, ROUNDS, replace=False)
    times: dict[str, list[float]] = {"flat": [], "index": [], "exact": []}
    found = []
    for row in asked:
        queries, exclude = stored_queries(store, np.array([row])), [int(row)]
        vector = flat.vectors.queries(queries)
        times["flat"].append(_seconds(lambda vector=vector: flat.index.search(vector, K + 1)))  # type: ignore[misc]
        answers = [
            _timed(lambda q=queries, e=exclude: index.search(q, K, exclude=e), times["index"]),  # type: ignore[misc]
            _timed(lambda q=queries, e=exclude: exact_search(store, q, K, exclude=e), times["exact"]),  # type: ignore[misc]
        ]
        found.append(np.isin(answers[1].indices, answers[0].indices).mean())
    faster = [statistics.median(_ratios(times[name], times["index"])) for name in ("flat", "exact")]
    cells = [f"{faster[0]:.1f}", f"{faster[1]:.1f}", f"{1e3 * statistics.median(times['index']):.1f}"]
    cells += [f"{np.mean(found):.4f}", f"{building:.1f}", *(f"{building / read:.1f}" for read in reads)]
    return f"| {kind} | {' | '.join(cells)} | {measuring:.1f} | effort {index.effort}, {in_words(index.recall)} |"


class flat_ip:  # noqa: N801 - read as a contender's name
    """FAISS IndexFlatIP over float32 copies of all rows: the peer."""

    def __init__(self, store: Store) -> None:
        norms = all_norms(store)
        self.vectors = Vectors.of(store, norms, "beside", "none")
        self.index = faiss.IndexFlatIP(self.vectors.width)
        for block in self.vectors.blocks(store, norms):
            self.index.add(block)


def build(store: Store, kind: str) -> tuple[indexes.FaissIndex, float, float]:
    """The index, seconds to build it, and seconds to measure what it finds."""
    measured: list[float] = []

    def timed(*of: Any) -> Any:
        return _timed(lambda: tune_and_measure(*of), measured)

    with patch.object(indexes, "tune_and_measure", timed):
        started = time.perf_counter()
        index = indexes.INDEX_TYPES[kind].build(store, memory=10**11)
        return index, time.perf_counter() - started - measured[0], measured[0]


def read_once(store: Store) -> None:
    """Every stored byte of the sketches, a block at a time."""
    for checkpoint in range(store.n_checkpoints):
        for start, stop in store.blocks(1024):
            store.unit_sketches(checkpoint, start, stop)


def widen_once(store: Store) -> None:
    """The same as float32 vectors, weighted: what any index is built from."""
    norms = all_norms(store)
    for _ in Vectors.of(store, norms, "beside", "none").blocks(store, norms):
        pass


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _timed(run: Callable[[], Any], into: list[float]) -> Any:
    started = time.perf_counter()
    found = run()
    into.append(time.perf_counter() - started)
    return found


def _ratios(above: list[float], below: list[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


if __name__ == "__main__":
    main()
