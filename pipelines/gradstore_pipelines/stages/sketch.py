"""The sketch stage: examples of one shard at one checkpoint -> one shard of the store.

The stage carries a few names; the store's manifest holds everything else, so that a unit is small to send and a
worker cannot work by other settings than the store's. That it sees the same manifest, and reads the same data, is
compared once a process: data by their stamp, and by reading them all where that differs, as it does for a copy.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gradstore.data import load_batch, reopen, scan
from gradstore.data.source import ExampleSource
from gradstore.devices import usable_device
from gradstore.errors import StoreMismatchError
from gradstore.gradients.engine import Gradients, SetGradients
from gradstore.sketcher import Sketcher, single_thread, sketcher_of
from gradstore.store import SetRows, ShardRows, Store
from gradstore.store.layout import shard_bytes
from gradstore.store.place import Location
from gradstore_pipelines.stage import Unit, UnitRecord
from gradstore_pipelines.stages.blame import guilty


@dataclass(frozen=True)
class SketchStage:
    """Sketches every example of a store's source at every checkpoint."""

    store: Location
    batch_size: int
    device: str
    manifest: str | None = None
    """hash of the store's manifest, as whoever planned the work saw it"""
    stamp: str | None = None
    """of the data, likewise"""
    name: str = "sketch"

    @classmethod
    def planned(cls, store: Store, batch_size: int, device: str, stamp: str | None) -> SketchStage:
        """For this store as it is now; a worker that sees another refuses."""
        return cls(store.location, batch_size, device, _hash_of(store), stamp)

    @property
    def row_bytes(self) -> int:
        manifest = Store.open(self.store).manifest
        return shard_bytes(manifest) // manifest.shard_rows

    def units(self) -> Iterator[Unit]:
        for checkpoint, shard in Store.open(self.store).pending():
            yield Unit(checkpoint, shard)

    @single_thread()  # the whole unit: threads that wait for one another cost more than they give on small blocks
    def run_unit(self, unit: Unit, advance: Callable[[int], None] | None = None) -> UnitRecord:
        opened, advance = self._opened(), advance or (lambda n: None)
        rows = opened.store.shard_range(unit.shard)
        if opened.store.is_committed(unit.checkpoint, unit.shard):
            advance(len(rows))
            return UnitRecord(unit, len(rows), made=False)
        parts = _evaluate(opened, unit.checkpoint, rows, self.batch_size, advance)
        opened.store.write_shard(unit.checkpoint, unit.shard, parts)
        return UnitRecord(unit, len(rows))

    @single_thread()
    def blame(self, unit: Unit) -> list[str]:
        """By trying blocks, then ever smaller parts of those that fail."""
        opened = self._opened()
        rows = opened.store.shard_range(unit.shard)
        bad = guilty(rows, opened.sketcher.plan.block, lambda part: _fails(opened, unit.checkpoint, part))
        return [name for row in bad for name in opened.source.ids(slice(row, row + 1))]

    def _opened(self) -> _Opened:
        return _open(self.store, self.device, self.manifest, self.stamp, os.getpid())


@dataclass(frozen=True)
class _Opened:
    store: Store
    source: ExampleSource
    sketcher: Sketcher


@functools.lru_cache(maxsize=1)
def _open(location: Location, device: str, manifest: str | None, stamp: str | None, process: int) -> _Opened:
    """Once a process: `process` keeps a forked child from using its parent's files."""
    store = Store.open(location)
    if manifest is not None and _hash_of(store) != manifest:
        raise StoreMismatchError(f"The store at '{location}' is another one here: its manifest.json is not the same.")
    settings, provenance = store.manifest.settings, store.manifest.provenance
    sketcher = sketcher_of(store, usable_device(device))
    source = reopen(provenance["source"])
    if stamp is not None and source.stamp() != stamp:
        _require_same_content(source, settings["request"]["data"]["content"])
    return _Opened(store, source, sketcher)


def _hash_of(store: Store) -> str:
    return hashlib.sha256(store.manifest.to_json().encode()).hexdigest()


def _require_same_content(source: ExampleSource, expected: str) -> None:
    found = scan(source).content_hash
    if found != expected:
        raise StoreMismatchError(
            f"The data at '{source.describe()['path']}' are not those that the store is made of: their content is "
            f"{found[:12]}, expected {expected[:12]}. Put the same data there, or mount the same disk."
        )


def _fails(opened: _Opened, checkpoint: int, rows: range) -> bool:
    """Whether these examples, by themselves, cannot be read, cannot be evaluated, or give NaN or infinity."""
    try:
        batch = load_batch(opened.source, slice(rows.start, rows.stop))
        found = opened.sketcher.gradients(checkpoint, batch)
    except Exception:
        return True
    norms = [gradients.sq_norms for gradients in found.sets.values()]
    return not all(bool(values.isfinite().all()) for values in (found.losses, found.latents, *norms))


def _evaluate(
    opened: _Opened, checkpoint: int, rows: range, batch_size: int, advance: Callable[[int], None]
) -> Iterator[ShardRows]:
    """A shard's rows, a block at a time. Batches are whole blocks, so that batch size never changes a byte."""
    block = opened.sketcher.plan.block
    step = max(1, batch_size // block) * block
    starts = range(rows.start, rows.stop, step)
    batches = (load_batch(opened.source, slice(start, min(start + step, rows.stop))) for start in starts)
    for found in opened.sketcher.blocks(checkpoint, batches):
        yield shard_rows(found)
        advance(len(found.losses))


def shard_rows(found: Gradients) -> ShardRows:
    """What the engine found, as a store takes it."""
    sets = {name: _set_rows(gradients) for name, gradients in found.sets.items()}
    predictions = None if found.predictions is None else found.predictions.numpy()
    return ShardRows(sets, found.losses.float().numpy(), found.latents.float().numpy(), predictions)


def _set_rows(found: SetGradients) -> SetRows:
    draws = None if found.draw_sq_norms is None else found.draw_sq_norms.numpy()
    return SetRows(found.sketches.numpy(), found.sq_norms.numpy(), found.layer_sq_norms.numpy(), draws)
