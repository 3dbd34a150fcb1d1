"""What the store costs over a plain file of the same bytes.

    python tests/benchmarks/store.py --rows 40000 --out store.md

Writing: shards of 512-number sketches (and the norms, losses and latents that go with them) are handed over as a build
hands them over, and committed; one floor writes as many bytes to one file a shard, the other to as many files as the
store has; every file and its folder are synced before the next. Reading: the whole array of sketches, in blocks; the
floor reads the same files with numpy. Medians over rounds of the ratio to the floor just before; one thread, files in
the page cache.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from gradstore.store import SetRows, ShardRows, Store
from gradstore.store.files import sync_folder, write_atomically
from gradstore.store.layout import shard_files
from gradstore.testing.store_kit import example_batches, manifest_of

D_SKETCH, D_LATENT, SHARD_ROWS = 512, 16, 8192


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=40_960)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where the files go, and are removed: the disk to measure")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        table = _table(Bench(folder, options.rows), options.rounds)
    finally:
        shutil.rmtree(folder)
    print(table)
    if options.out:
        options.out.write_text(table + "\n", encoding="utf-8")


class Bench:
    """A store to fill and read, and plain files of the same bytes."""

    def __init__(self, folder: Path, n_rows: int) -> None:
        self.folder, self.n_rows = folder, n_rows
        draw = np.random.default_rng(0).standard_normal
        sketches = draw((SHARD_ROWS, D_SKETCH), dtype=np.float32)
        squares = np.square(sketches, dtype=np.float64).sum(1)
        rest = draw(SHARD_ROWS, dtype=np.float32), draw((SHARD_ROWS, D_LATENT), dtype=np.float32)
        self.rows = ShardRows({"all": SetRows(sketches, squares)}, *rest)
        self.store = self._empty("read")
        self.write_store(self.store)
        self.files = [
            [(self.store.folder / name).read_bytes() for name in shard_files(self.store.manifest, 0, shard)]
            for shard in range(self.store.n_shards)
        ]
        self.buffer = np.empty((SHARD_ROWS, D_SKETCH), np.float16)
        self.turn = 0

    def write_store(self, store: Store) -> None:
        """Every shard, in the parts that a build hands over."""
        for shard in range(store.n_shards):
            n = len(store.shard_range(shard))
            store.write_shard(0, shard, (_part(self.rows, i, min(i + 512, n)) for i in range(0, n, 512)))

    def fresh_store(self) -> None:
        """The measured write, with the making of an empty store, which is some small files."""
        self.write_store(self._empty(self._name()))

    def one_file_a_shard(self) -> None:
        """The same bytes, synced."""
        folder = self._folder()
        for number, parts in enumerate(self.files):
            write_atomically(folder / str(number), b"".join(parts))

    def as_many_files(self) -> None:
        """The same bytes in as many synced files as the store has, records included."""
        folder = self._folder()
        for number, parts in enumerate(self.files):
            for kind, part in enumerate([*parts, b"a commit record" * 20]):
                write_atomically(folder / f"{number}-{kind}", part)

    def read_store(self) -> None:
        for start, stop in self.store.blocks(SHARD_ROWS):
            self.store.unit_sketches(0, start, stop)

    def read_mapped(self) -> None:
        """As searches look at rows: mapped, and every number added up."""
        for start, stop in self.store.blocks(SHARD_ROWS):
            self.store.mapped_sketches(0, start, stop).view(np.uint16).max()

    def read_files(self) -> None:
        """The same files, each into memory of its own."""
        for shard in range(self.store.n_shards):
            np.fromfile(self.store.folder / shard_files(self.store.manifest, 0, shard)[0], np.float16)

    def read_files_looking(self) -> None:
        for shard in range(self.store.n_shards):
            np.fromfile(self.store.folder / shard_files(self.store.manifest, 0, shard)[0], np.uint16).max()

    def _empty(self, name: str) -> Store:
        manifest = manifest_of(
            n_examples=self.n_rows,
            d_sketch=D_SKETCH,
            d_latent=D_LATENT,
            shard_rows=SHARD_ROWS,
            learning_rates=(1.0,),
        )
        return Store.create(self.folder / name, manifest, example_batches([f"x{row}" for row in range(self.n_rows)]))

    def _folder(self) -> Path:
        folder = self.folder / self._name()
        folder.mkdir()
        sync_folder(self.folder)
        return folder

    def _name(self) -> str:
        self.turn += 1
        return str(self.turn)


def _part(rows: ShardRows, start: int, stop: int) -> ShardRows:
    of = slice(start, stop)
    found = rows.sets["all"]
    return ShardRows({"all": SetRows(found.sketches[of], found.sq_norms[of])}, rows.losses[of], rows.latents[of])


def _table(bench: Bench, rounds: int) -> str:
    pairs: list[tuple[str, Callable[[], None], str, Callable[[], None]]] = [
        ("write a store", bench.fresh_store, "one synced file a shard", bench.one_file_a_shard),
        ("write a store", bench.fresh_store, "as many synced files", bench.as_many_files),
        ("read all sketches", bench.read_store, "numpy.fromfile", bench.read_files),
        ("map and look at all sketches", bench.read_mapped, "numpy.fromfile, and look", bench.read_files_looking),
    ]
    size = sum(len(part) for parts in bench.files for part in parts) / 1e6
    lines = [
        f"{bench.n_rows:,} rows of {D_SKETCH}, {size:.0f} MB",
        "",
        "| | over | ratio | MB/s |",
        "|---|---|---|---|",
    ]
    for title, work, floor_title, floor in pairs:
        ratios, seconds = [], []
        for _ in range(rounds):
            base, own = _seconds(floor), _seconds(work)
            ratios.append(own / base)
            seconds.append(own)
        lines.append(
            f"| {title} | {floor_title} | {statistics.median(ratios):.2f} | {size / statistics.median(seconds):,.0f} |"
        )
    return "\n".join(lines)


def _seconds(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
