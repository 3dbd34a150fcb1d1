"""The sketch stage: examples of one shard at one checkpoint -> one shard of the store.

The stage carries three names; the store's manifest holds everything else, so that a unit is small to send and a
worker cannot work by other settings than the store's.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from gradstore.data import load_batch, reopen
from gradstore.data.source import ExampleSource
from gradstore.gradients.engine import Gradients, SetGradients
from gradstore.sketcher import Sketcher, SketchPlan, single_thread
from gradstore.store import SetRows, ShardRows, Store
from gradstore_pipelines.stage import Unit, UnitRecord


@dataclass(frozen=True)
class SketchStage:
    """Sketches every example of a store's source at every checkpoint."""

    store: Path
    batch_size: int
    device: str
    name: str = "sketch"

    def units(self) -> Iterator[Unit]:
        for checkpoint, shard in Store.open(self.store).pending():
            yield Unit(checkpoint, shard)

    @single_thread()  # the whole unit: threads that wait for one another cost more than they give on small blocks
    def run_unit(self, unit: Unit, advance: Callable[[int], None] | None = None) -> UnitRecord:
        opened = _open(self.store, self.device, os.getpid())
        rows = opened.store.shard_range(unit.shard)
        opened.store.refresh()
        if opened.store.is_committed(unit.checkpoint, unit.shard):
            return UnitRecord(unit, len(rows))
        parts = _evaluate(opened, unit.checkpoint, rows, self.batch_size, advance or (lambda n: None))
        opened.store.write_shard(unit.checkpoint, unit.shard, parts, opened.fingerprint)
        return UnitRecord(unit, len(rows))


@dataclass(frozen=True)
class _Opened:
    store: Store
    source: ExampleSource
    sketcher: Sketcher
    fingerprint: str


@functools.lru_cache(maxsize=1)
def _open(path: Path, device: str, process: int) -> _Opened:
    """Once a process: `process` keeps a forked child from using its parent's files."""
    store = Store.open(path)
    settings, provenance = store.manifest.settings, store.manifest.provenance
    sketcher = Sketcher(SketchPlan.from_json(settings["plan"]), path, device)
    return _Opened(store, reopen(provenance["source"]), sketcher, store.manifest.fingerprint())


def _evaluate(
    opened: _Opened, checkpoint: int, rows: range, batch_size: int, advance: Callable[[int], None]
) -> Iterator[ShardRows]:
    """A shard's rows, a block at a time. Batches are whole blocks, so that batch size never changes a byte."""
    block = opened.sketcher.plan.block
    step = max(1, batch_size // block) * block
    starts = range(rows.start, rows.stop, step)
    batches = (load_batch(opened.source, slice(start, min(start + step, rows.stop))) for start in starts)
    for found in opened.sketcher.blocks(checkpoint, batches):
        yield _shard_rows(found)
        advance(len(found.losses))


def _shard_rows(found: Gradients) -> ShardRows:
    sets = {name: _set_rows(gradients) for name, gradients in found.sets.items()}
    return ShardRows(sets, found.losses.float().numpy(), found.latents.float().numpy())


def _set_rows(found: SetGradients) -> SetRows:
    draws = None if found.draw_sq_norms is None else found.draw_sq_norms.numpy()
    return SetRows(found.sketches.numpy(), found.sq_norms.numpy(), found.layer_sq_norms.numpy(), draws)
