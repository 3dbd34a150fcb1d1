"""The scan on a CPU, with compiled loops around numpy's matrix product.

Many queries: pieces of a block that fit into the cache are widened to float32 and multiplied; the loop over the
scores then costs a thirtieth of the product. Few queries: no matrix product, the stored bytes are read once and
nothing is written (`gradstore.search.kernels`).

Why pieces of about 1,000 rows: the k-th best rises from piece to piece, so that all in all a query settles about
k ln(N / 1,000) rows; and 4 MB of floats stay in a processor's cache between widening and multiplying.

Why numpy's product: on an AMD processor its OpenBLAS takes 10-25 % less time than torch's MKL (measured, one thread,
2,048 x 512 times 512 x 256), and the arrays are numpy's already.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int32, UInt16

from gradstore.compiled import has_numba
from gradstore.search.blocks import Block
from gradstore.search.question import Question
from gradstore.search.running import HeapBest
from gradstore.search.scan import UNDERFLOW, Hidden, Scan

FEW_QUERIES = 8
"""Up to so many, reading rows as they are beats the matrix product."""

_PIECE_NUMBERS = 1 << 20  # float32 numbers of rows held at once: 4 MiB
_SCORE_NUMBERS = 1 << 22  # float32 scores held at once: 16 MiB


@functools.cache
def is_usable() -> bool:
    """Whether numba is installed and the processor can widen float16."""
    if not has_numba():
        return False
    from gradstore.search.kernels import processor_widens_halves

    return processor_widens_halves()


class CompiledScan(Scan):
    """`Scan` on the CPU; needs `is_usable`."""

    def __init__(self, question: Question, k: int, signs: tuple[int, ...], hidden: Hidden) -> None:
        super().__init__(question, k, signs, hidden)
        self._screens = [screen.contiguous().numpy() for screen in question.screen]
        self._wide = self._product = np.empty(0, dtype=np.float32)
        self._errors = np.array([question.rounding, UNDERFLOW], dtype=np.float32)

    def run(self, blocks: Iterator[Block]) -> None:
        for block in blocks:
            step = self._piece_rows(block)
            for start in range(0, len(block.rows), step):
                self._see(block.part(start, start + step))
            del block  # its map is let go before the next one is made

    def _empty(self, n_queries: int, k: int) -> HeapBest:
        return HeapBest(n_queries, k)

    def _piece_rows(self, block: Block) -> int:
        n_queries = len(self._question)
        by_scores = max(64, _SCORE_NUMBERS // max(1, n_queries))
        if n_queries <= FEW_QUERIES:
            return by_scores
        return min(by_scores, max(64, _PIECE_NUMBERS // int(block.units[0].shape[1])))

    def _see(self, piece: Block) -> None:
        bits = [_bits(units) for units in piece.units]
        scores, squares = self._screen(bits, piece.screen_weights)
        rows, queries = self._sifted(scores, squares, piece)
        self._n_seen += len(scores)
        if len(rows):
            settled = self._settled(bits, piece.weights, rows, queries)
            owners = torch.from_numpy(queries.astype(np.int64))
            self._offer(owners, torch.from_numpy(piece.rows[rows]), torch.from_numpy(settled))

    def _screen(
        self, bits: list[UInt16[np.ndarray, "row d_sketch"]], weights: Float32[np.ndarray, "checkpoint row"]
    ) -> tuple[Float32[np.ndarray, "row query"], Float32[np.ndarray, " row"]]:
        from gradstore.search.kernels import dots

        scores = np.zeros((len(bits[0]), len(self._question)), dtype=np.float32)
        squares = np.zeros(len(bits[0]), dtype=np.float32)
        few = len(self._question) <= FEW_QUERIES
        for part, weight, asked in zip(bits, weights, self._screens, strict=True):
            weight = np.ascontiguousarray(weight)
            if few:
                dots(part, asked, weight, scores, squares)
            else:
                self._multiply(part, asked, weight, scores, squares)
        return scores, squares

    def _multiply(
        self,
        bits: UInt16[np.ndarray, "row d_sketch"],
        asked: Float32[np.ndarray, "query d_sketch"],
        weights: Float32[np.ndarray, " row"],
        scores: Float32[np.ndarray, "row query"],
        squares: Float32[np.ndarray, " row"],
    ) -> None:
        """As `kernels.dots`, by a matrix product: for many queries."""
        from gradstore.search.kernels import widen

        if self._wide.size < bits.size or self._product.size < scores.size:
            self._wide, self._product = np.empty(bits.size, np.float32), np.empty(scores.size, np.float32)
        wide = self._wide[: bits.size].reshape(bits.shape)
        widen(bits, weights, wide, squares)
        scores += np.matmul(wide, asked.T, out=self._product[: scores.size].reshape(scores.shape))

    def _sifted(
        self, scores: Float32[np.ndarray, "row query"], squares: Float32[np.ndarray, " row"], piece: Block
    ) -> tuple[Int32[np.ndarray, " pair"], Int32[np.ndarray, " pair"]]:
        """(row of the piece, query) of each score that float32 cannot rule out, for any end; ascending."""
        from gradstore.search.kernels import sift

        has_gradient = (piece.screen_weights > 0).any(axis=0)
        high, low = (self._bounds(sign, piece.scale) for sign in (1, -1))
        if self._is_first(len(scores)):
            slack = np.where(has_gradient, np.sqrt(squares) * self._errors[0] + self._errors[1], np.float32(0))
            known = torch.from_numpy(scores), torch.from_numpy(slack)
            high, low = self._bounds_within(1, high, *known), self._bounds_within(-1, low, *known)
        rows, queries = np.empty(scores.size, dtype=np.int32), np.empty(scores.size, dtype=np.int32)
        n = sift(scores, squares, has_gradient, self._errors, high.numpy(), low.numpy(), rows, queries)
        return rows[:n].copy(), queries[:n].copy()

    def _settled(
        self,
        bits: list[UInt16[np.ndarray, "row d_sketch"]],
        weights: Float64[np.ndarray, "checkpoint row"],
        rows: Int32[np.ndarray, " pair"],
        queries: Int32[np.ndarray, " pair"],
    ) -> Float64[np.ndarray, " pair"]:
        """Exact scores of chosen pairs."""
        from gradstore.search.kernels import settle

        scores = np.zeros(len(rows))
        of_queries = zip(self._question.units.numpy(), self._question.weights.numpy(), strict=True)
        for part, (units, asked), weight in zip(bits, of_queries, weights, strict=True):
            settle(part, units, asked, np.ascontiguousarray(weight), rows, queries, scores)
        return scores


def _bits(units: np.ndarray) -> UInt16[np.ndarray, "row d_sketch"]:
    """float16 rows as their bits, read-only, so that the loops are compiled once for copies and maps."""
    bits = np.ascontiguousarray(units).view(np.uint16)
    bits.flags.writeable = False
    return bits
