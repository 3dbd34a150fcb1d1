"""Blocks of a store's rows on their way to the scan, and to a GPU while the block before is multiplied.

On a CPU nothing is copied: rows are looked at in the page cache, through a map of one shard. On a GPU a block goes
through one of two pinned buffers on a stream of its own, so that reading, copying and multiplying overlap; on a
machine with several threads a reader runs one block ahead likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float32, Float64, Int64
from torch import Tensor

from gradstore.search.searchable import Searchable

Weigh = Callable[[slice], Float64[np.ndarray, "checkpoint row"]]
"""b_t(x) of a range of examples."""


@dataclass(frozen=True, eq=False)
class Block:
    """Rows in ascending order, as stored, in memory."""

    rows: Int64[np.ndarray, " row"]
    """their numbers in the store"""
    units: list[Float16[np.ndarray, "row d_sketch"]]
    """one a checkpoint"""
    weights: Float64[np.ndarray, "checkpoint row"]
    """b_t(x)"""
    scale: float
    """The largest weight: float32 screens weights divided by it."""
    screen_weights: Float32[np.ndarray, "checkpoint row"]
    """b_t(x) / scale"""

    def part(self, start: int, stop: int) -> Block:
        """Some of its rows."""
        of = slice(start, stop)
        units = [unit[of] for unit in self.units]
        return Block(self.rows[of], units, self.weights[:, of], self.scale, self.screen_weights[:, of])


def read_blocks(
    rows: Searchable, weigh: Weigh, allowed: Bool[np.ndarray, " example"] | None, block_rows: int
) -> Iterator[Block]:
    """All rows that may be found, in order; a block without any is not read."""
    for start, stop in rows.blocks(block_rows):
        kept = None if allowed is None or allowed[start:stop].all() else np.flatnonzero(allowed[start:stop])
        if kept is not None and not kept.size:
            continue
        yield _read(rows, weigh, start, stop, kept)  # held by nobody here, so that one block's map is let go in time


def _read(rows: Searchable, weigh: Weigh, start: int, stop: int, kept: Int64[np.ndarray, " kept"] | None) -> Block:
    """Rows start to stop, or of these the ones kept."""
    units = [rows.mapped_sketches(t, start, stop) for t in range(rows.n_checkpoints)]
    weights = weigh(slice(start, stop))
    if kept is None:
        return _block(np.arange(start, stop), units, weights)
    return _block(start + kept, [unit[kept] for unit in units], weights[:, kept])


def _block(
    rows: Int64[np.ndarray, " row"],
    units: list[Float16[np.ndarray, "row d_sketch"]],
    weights: Float64[np.ndarray, "checkpoint row"],
) -> Block:
    scale = float(weights.max(initial=0.0)) or 1.0
    return Block(rows, units, weights, scale, (weights / scale).astype(np.float32))


def one_ahead(blocks: Iterator[Block]) -> Iterator[Block]:
    """The same blocks, the next one read by a thread while the caller works on this one.

    A mapped block is touched there, a byte a page, so that it is the reader who waits for the disk.
    """
    with ThreadPoolExecutor(1, "gradstore-read") as reader:
        coming = reader.submit(_next_touched, blocks)
        while (block := coming.result()) is not None:
            coming = reader.submit(_next_touched, blocks)
            yield block


def _next_touched(blocks: Iterator[Block]) -> Block | None:
    block = next(blocks, None)
    for unit in block.units if block else []:
        unit.view(np.uint8).reshape(-1)[::4096].max(initial=0)
    return block


class Stager:
    """Copies blocks' rows to a device ahead of their use."""

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._is_gpu = self._device.type == "cuda"
        self._buffers: list[Tensor] = [torch.empty(0, dtype=torch.float16)] * 2
        self._free: list[torch.cuda.Event | None] = [None, None]
        self._stream: torch.cuda.Stream | None = None
        if self._is_gpu:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._turn = 0

    def staged(self, blocks: Iterator[Block]) -> Iterator[tuple[Block, Float16[Tensor, "checkpoint row d_sketch"]]]:
        """Each block with its rows on the device; the copy of the next one has begun by then."""
        waiting: tuple[Block, Tensor, torch.cuda.Event | None] | None = None
        for block in chain(blocks, [None]):
            begun = None if block is None else (block, *self._begin(block))
            if waiting is not None:
                yield waiting[0], self._finish(waiting[1], waiting[2])
            waiting = begun

    def _begin(self, block: Block) -> tuple[Tensor, torch.cuda.Event | None]:
        """Fill the buffer that is free and start its copy."""
        pinned = self._buffer(len(block.units), *block.units[0].shape)
        for target, unit in zip(pinned.numpy(), block.units, strict=True):
            np.copyto(target, unit)
        if self._stream is None:
            return pinned.to(self._device, copy=True), None
        with torch.cuda.stream(self._stream):
            copy = pinned.to(self._device, non_blocking=True)
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record(self._stream)
        self._free[self._turn] = done
        return copy, done

    def _finish(self, copy: Tensor, done: torch.cuda.Event | None) -> Tensor:
        """Let the current stream wait for a copy, and the allocator know that it is used there."""
        if done is not None:
            current = torch.cuda.current_stream(self._device)
            current.wait_event(done)
            copy.record_stream(current)
        return copy

    def _buffer(self, *shape: int) -> Tensor:
        """The other of the two buffers, once its last copy is through."""
        self._turn = 1 - self._turn
        if (done := self._free[self._turn]) is not None:
            done.synchronize()
        size = int(np.prod(shape))
        if self._buffers[self._turn].numel() < size:
            self._buffers[self._turn] = torch.empty(size, dtype=torch.float16, pin_memory=self._is_gpu)
        return self._buffers[self._turn][:size].view(shape)
