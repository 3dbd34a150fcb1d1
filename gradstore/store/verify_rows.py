"""Can these numbers be right? What was committed may have been wrong when it was computed.

- Every number is finite.
- A sketch is all zeros if and only if its gradient's norm is 0.
- A stored sketch is u = S g / |g|, S the projection: E|u|² = 1 and Var|u|² <= 2 / k, whatever g is (a count sketch
  with independent signs; Charikar et al. 2002). So by Chebyshev's inequality |u|² lies within 8 sqrt(2/k) of 1 but for
  one gradient in 64, and sums of many coordinates do so far more surely. The projection is one for all rows, whose
  gradients resemble each other, so that some may lie outside together; that more than half of a shard's do has at
  most the probability 1/32 for the worst imaginable gradients (two numbers each, in the same place of the sketch) and
  none worth naming for others. Then norms and sketches are not of the same gradients. (Rounding to float16 or int8 adds
  less than 0.005.)
- The squared norms of layers sum to that of the whole; the mean over draws is no longer than its draws' mean square.
  Both to the rounding of float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from gradstore.errors import StoreCorruptError
from gradstore.store import layout
from gradstore.store.findings import Discard, Finding
from gradstore.store.kinds import DRAW_NORMS, LATENTS, LAYER_NORMS, LOSSES, NORMS, PREDICTIONS, SKETCHES, Kind
from gradstore.store.store import Store

_DEVIATIONS = 8.0
_ROUNDING = 0.005
_FLOAT32 = 2.0**-20
_BLOCK = 4096
_SHOWN = 5

Rows = NDArray[np.floating[Any]]


class RowChecks:
    """Checks of a store's rows, shard by shard; counts what is no fault and worth knowing."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sets = [store.of_set(name) for name in store.parameter_sets]
        self._without = np.zeros((len(self._sets), store.n_checkpoints), dtype=np.int64)

    def check(self, checkpoint: int, shard: int) -> Iterator[Finding]:
        """Faults of one shard whose files are as they were committed."""
        span, discard = self._store.shard_range(shard), Discard(checkpoint, shard)
        for number, store in enumerate(self._sets):
            tally = _Tally(store.manifest.d_sketch)
            for start in range(span.start, span.stop, _BLOCK):
                tally.add(_block(store, checkpoint, start, min(start + _BLOCK, span.stop)))
            self._without[number, checkpoint] += tally.n_without
            for kind, sentence in tally.faults(self._named):
                array = layout.array_of(store.manifest, kind, store.parameters if kind.of_set else None)
                file = array.file_name(checkpoint, shard)
                if kind.of_set or number == 0:  # what all sets share is read with each
                    yield Finding("rows", file, f"{file}: {sentence}. {_CURE}", discard)

    def notes(self) -> Iterator[str]:
        """Examples without a gradient, by set and checkpoint."""
        for (number, checkpoint), count in np.ndenumerate(self._without):
            if count:
                of = f"{count:,} of {self._store.n_examples:,} examples have no gradient of"
                yield f"{of} {self._sets[number].parameters!r} at checkpoint {checkpoint}."

    def _named(self, rows: list[int]) -> str:
        try:
            names = [repr(self._store.ids(row, row + 1)[0]) for row in rows[:_SHOWN]]
        except (FileNotFoundError, StoreCorruptError):  # reported already
            names = [f"row {row}" for row in rows[:_SHOWN]]
        return ", ".join(names) + (", …" if len(rows) > _SHOWN else "")


_CURE = "These are the bytes that were committed: look at the examples, then delete the shard's record and build on."


@dataclass(frozen=True)
class _Block:
    """The rows of a block, by kind, and their numbers."""

    start: int
    values: dict[Kind, Rows]


def _block(store: Store, checkpoint: int, start: int, stop: int) -> _Block:
    readers: dict[Kind, Callable[[int, int, int], Rows]] = {
        SKETCHES: store.precise_sketches,
        NORMS: store.norms,
        LOSSES: store.losses,
        LATENTS: store.latents,
        LAYER_NORMS: store.layer_norms,
        DRAW_NORMS: store.draw_norms,
        PREDICTIONS: store.predictions,
    }
    return _Block(start, {k: read(checkpoint, start, stop) for k, read in readers.items() if store.keeps(k.name)})


class _Tally:
    """What the blocks of a shard have shown of one set of parameters."""

    def __init__(self, d_sketch: int) -> None:
        self._bound = _DEVIATIONS * math.sqrt(2 / d_sketch) + _ROUNDING
        self._bad: dict[tuple[Kind, str], list[int]] = {}
        self._lengths: list[Float[np.ndarray, " row"]] = []
        self.n_without = 0
        """rows whose gradient is zero"""

    def add(self, block: _Block) -> None:
        for kind, values in block.values.items():
            finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
            self._note(kind, "NaN or infinity", block, np.asarray(~finite))
        self._add_sketches(block)
        self._add_parts(block)

    def _add_sketches(self, block: _Block) -> None:
        norms = block.values[NORMS]
        squares = np.square(block.values[SKETCHES], dtype=np.float64).sum(axis=1)
        self._note(SKETCHES, "all zeros beside a norm above 0", block, np.asarray((squares == 0) & (norms > 0)))
        self._note(SKETCHES, "a sketch beside a norm of 0", block, np.asarray((squares > 0) & (norms == 0)))
        self._lengths.append(squares[np.isfinite(squares) & (norms > 0)])
        self.n_without += int((norms == 0).sum())

    def _add_parts(self, block: _Block) -> None:
        with np.errstate(over="ignore", invalid="ignore"):  # not finite: noted already
            squares = np.square(block.values[NORMS], dtype=np.float64)
            if LAYER_NORMS in block.values:
                parts = np.square(block.values[LAYER_NORMS], dtype=np.float64).sum(axis=1)
                off = np.asarray(np.abs(parts - squares) > _FLOAT32 * squares + np.finfo(np.float32).tiny)
                self._note(LAYER_NORMS, "squares that do not sum to that of the norm", block, off)
            if DRAW_NORMS in block.values:
                draws = np.square(block.values[DRAW_NORMS], dtype=np.float64)
                off = np.asarray(draws < squares * (1 - _FLOAT32) - np.finfo(np.float32).tiny)
                self._note(DRAW_NORMS, "a mean square over draws below that of the mean", block, off)

    def _note(self, kind: Kind, what: str, block: _Block, bad: Bool[np.ndarray, " row"]) -> None:
        if bad.any():
            self._bad.setdefault((kind, what), []).extend((block.start + np.flatnonzero(bad)).tolist())

    def faults(self, named: Callable[[list[int]], str]) -> Iterator[tuple[Kind, str]]:
        """Kind of array and what is wrong with it, in words."""
        for (kind, what), rows in self._bad.items():
            yield kind, f"{len(rows)} rows hold {what}: {named(rows)}"
        lengths = np.concatenate(self._lengths)
        if len(lengths) and np.mean(np.abs(lengths - 1) > self._bound) > 0.5:
            yield (
                SKETCHES,
                f"the squared length of sketch / norm is {np.median(lengths):.3g} in the median of {len(lengths)} "
                f"rows; the projection gives 1 ± {self._bound:.2g}. They are not of the same gradients",
            )
