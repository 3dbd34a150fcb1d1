"""Flips single bits in random places of a store's files and counts those that `gradstore verify` does not find.

python -m tests.faults.flips [NUMBER]        (1,000 by default, about two minutes; the answer must be 0)

The store has all that a store can have: several sets, layer and draw norms, predictions, cached signals, an index, a
graph, forgotten examples, and an append that was interrupted.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import gradstore
from gradstore.store import Store, verify_at
from gradstore.store.journal import Journal
from gradstore_pipelines.append_settings import AppendSettings
from gradstore_pipelines.build_store import build
from gradstore_pipelines.graph import build_graph
from gradstore_pipelines.graph_settings import GraphSettings
from gradstore_pipelines.growth import planned
from gradstore_pipelines.progress import Silent
from gradstore_pipelines.settings import BuildSettings


def make(folder: Path) -> Path:
    """The store, and beside it the data."""
    rows = np.random.default_rng(0).normal(size=(100, 6)).astype(np.float32)
    for name, part in (("rows", rows[:90]), ("more", rows[90:])):
        np.savez(
            folder / f"{name}.npz", rows=part, labels=np.arange(len(part)) % 2, ids=[f"{name}{n}" for n in part[:, 0]]
        )
    store = folder / "store"
    build(
        BuildSettings(
            source=folder / "rows.npz",
            store=store,
            model="classifier",
            parameters=("encoder", "all"),
            per_layer_norms=True,
            draws=2,
            sketch_dim=16,
            sketch_dtype="int8",
            epochs=2,
            n_checkpoints=2,
            device="cpu",
        )
    )
    opened = gradstore.open(store)
    opened.rank()
    opened.build_index("none", "flat")
    build_graph(GraphSettings(store=store, k=3))
    opened.store.forget(opened.store.ids(3, 6))
    opened.rank()
    journal = planned(AppendSettings(store=store, source=folder / "more.npz", device="cpu"), opened.store, Silent())
    assert isinstance(journal, Journal)
    assert journal.write(Store.open(store).place)
    return store


def unnoticed(store: Path, number: int, seed: int = 0) -> Iterator[str]:
    """Flip a bit, look, and put it back; file and place of every flip that is not found."""
    files, choose = sorted(file for file in store.rglob("*") if file.is_file()), random.Random(seed)
    for _ in range(number):
        file = choose.choice(files)
        whole = file.read_bytes()
        place = choose.randrange(len(whole))
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << choose.randrange(8)]) + whole[place + 1 :])
        if verify_at(store).ok:
            yield f"{file.relative_to(store)}, byte {place} of {len(whole)}"
        file.write_bytes(whole)


def main(number: int) -> int:
    """Exit status 1 where a flip was not found."""
    with tempfile.TemporaryDirectory() as folder:
        store = make(Path(folder))
        assert verify_at(store).ok
        missed = list(unnoticed(store, number))
    print("\n".join([*missed, f"{len(missed)} of {number} flipped bits were not found"]))
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
