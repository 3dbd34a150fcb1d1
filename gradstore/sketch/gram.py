"""Inner products of the exact gradients of a few hundred examples, and their sketches, in bounded memory.

A gradient is as large as the model, so a sample's gradients are not kept. A block of examples is held, sketched and
multiplied with the gradients of all later examples, which pass by it and are computed anew for every block. That
costs about n² / 2m gradients, with n examples of which m are held: once each where the whole sample fits, and some
eight thousand for 256 examples of a model of 11 M numbers in 256 MB.

Why the exact gradients come through a function: it takes each example alone through plain autograd, which makes it
an oracle that shares nothing with the engine whose sketches are judged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from gradstore.errors import TaskError
from gradstore.sketch.count_sketch import CountSketch, matrix_shape

BLOCK_BYTES = 256_000_000
_COPIED = 1 << 21  # numbers copied at a time: 16 MB in float64
_SHOWN = 5


@dataclass(frozen=True)
class GradientSample:
    """The exact gradients of a sample of examples, computed whenever they are asked for."""

    n_examples: int
    parameters: Mapping[str, Tensor]
    """What the gradients are taken with respect to, by name."""
    gradients: Callable[[range], Iterable[Mapping[str, Tensor]]]
    """Gradients of some of the examples, in their order: name -> a tensor of the parameter's shape."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: tuple(parameter.shape) for name, parameter in self.parameters.items()}

    @property
    def n_numbers(self) -> int:
        """Length of one gradient."""
        return sum(parameter.numel() for parameter in self.parameters.values())

    @property
    def dtype(self) -> torch.dtype:
        """What gradients are summed in: float32 for half-precision models, as the engine does."""
        is_double = all(parameter.dtype == torch.float64 for parameter in self.parameters.values())
        return torch.float64 if is_double else torch.float32

    @property
    def device(self) -> torch.device:
        return next(iter(self.parameters.values())).device


@dataclass(frozen=True)
class Blocks:
    """How a sample is cut: `held` gradients stay in memory while all later ones come by, `passing` at a time."""

    n_examples: int
    held: int
    passing: int

    @classmethod
    def within(cls, sample: GradientSample, block_bytes: int = BLOCK_BYTES) -> Blocks:
        """The largest blocks that stay within `block_bytes`, held and passing together; at least two gradients.

        A quarter passes: enough for matrix products to be quick, without costing many more gradients.
        """
        fit = max(2, block_bytes // (sample.n_numbers * sample.dtype.itemsize))
        if fit >= sample.n_examples:
            return cls(sample.n_examples, sample.n_examples, 0)
        passing = max(1, fit // 4)
        return cls(sample.n_examples, fit - passing, passing)

    def __iter__(self) -> Iterator[tuple[range, list[range]]]:
        """Every block that is held, with the blocks that pass by it."""
        for start in range(0, self.n_examples, self.held):
            stop = min(start + self.held, self.n_examples)
            starts = range(stop, self.n_examples, max(self.passing, 1))
            yield range(start, stop), [range(s, min(s + self.passing, self.n_examples)) for s in starts]

    @property
    def n_gradients(self) -> int:
        """How many gradients are computed in all."""
        return sum(self.n_examples - held.start for held, _ in self)


@dataclass(frozen=True)
class Products:
    """What is known of a sample's gradients at one checkpoint."""

    gram: Float64[np.ndarray, "example example"]
    """<g_i, g_j>, exact but for the rounding of the gradients themselves."""
    sketches: Mapping[int, Float32[np.ndarray, "example d_sketch"]]
    """By length; not normalised."""

    @property
    def norms(self) -> Float64[np.ndarray, " example"]:
        """|g_i|."""
        return np.asarray(np.sqrt(np.diag(self.gram)))


class SketchLengths:
    """Sketches of several lengths, for little more than the price of the longest.

    An offset is a hash mod d, so where d' divides d the shorter sketch is the longer one folded: its segments of
    d' numbers added up. Lengths that divide no longer one have a projection of their own.
    """

    def __init__(self, sample: GradientSample, lengths: Iterable[int], seed: int, stream: int) -> None:
        self.lengths = sorted(set(lengths), reverse=True)
        self._longest = {d: next(longer for longer in self.lengths if longer % d == 0) for d in self.lengths}
        self._projections = {
            d: CountSketch(sample.shapes, d, seed, stream=stream, device=sample.device, dtype=sample.dtype)
            for d in sorted(set(self._longest.values()))
        }
        self._shapes = sample.shapes

    def sketch(self, block: Float[Tensor, "example number"]) -> dict[int, Float32[np.ndarray, "example d_sketch"]]:
        """Sketches of flat gradients, by length."""
        long = {d: self._sketched(projection, block) for d, projection in self._projections.items()}
        folded = {d: long[self._longest[d]].reshape(len(block), -1, d).sum(1) for d in self.lengths}
        return {d: rows.to(torch.float32).cpu().numpy() for d, rows in folded.items()}

    def _sketched(self, projection: CountSketch, block: Tensor) -> Tensor:
        buffer = projection.buffer(len(block))
        for name, columns in _columns(self._shapes):
            matrices = block[:, columns].reshape(len(block), *matrix_shape(self._shapes[name]))
            step = max(1, _COPIED // matrices[0].numel())  # the fold copies what is not contiguous
            for first in range(0, len(block), step):
                buffer.add_dense(name, matrices[first : first + step], first)
        return buffer.result()


def products(sample: GradientSample, sketches: SketchLengths, blocks: Blocks) -> Products:
    """Exact inner products of all pairs, and the sketches of every example.

    Raises:
        TaskError: gradients that are not finite.
    """
    gram = np.zeros((sample.n_examples, sample.n_examples))
    found: list[dict[int, Float32[np.ndarray, "example d_sketch"]]] = []
    # One piece of memory for everything: a new block never stands beside the old one.
    room = torch.empty(blocks.held + blocks.passing, sample.n_numbers, dtype=sample.dtype, device=sample.device)
    for rows, later in blocks:
        held = _fill(room[: len(rows)], sample, rows)
        gram[_at(rows), _at(rows)] = _inner(held, held)
        found.append(sketches.sketch(held))
        for others in later:
            across = _inner(held, _fill(room[blocks.held : blocks.held + len(others)], sample, others))
            gram[_at(rows), _at(others)], gram[_at(others), _at(rows)] = across, across.T
    _require_finite(gram)
    return Products(gram, {d: np.concatenate([block[d] for block in found]) for d in sketches.lengths})


def _fill(out: Tensor, sample: GradientSample, rows: range) -> Tensor:
    """Write the gradients of `rows` into `out`, each laid out flat."""
    for row, gradient in zip(out, sample.gradients(rows), strict=True):
        for name, columns in _columns(sample.shapes):
            row[columns] = gradient[name].detach().flatten()
    return out


def _columns(shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, slice]]:
    """Where each parameter lies in a flat gradient."""
    start = 0
    for name, shape in shapes.items():
        stop = start + int(np.prod(shape))
        yield name, slice(start, stop)
        start = stop


def _inner(
    left: Float[Tensor, "held number"], right: Float[Tensor, "passing number"]
) -> Float64[np.ndarray, "held passing"]:
    """Products and sums in float64, a few columns at a time."""
    total = torch.zeros(len(left), len(right), dtype=torch.float64, device=left.device)
    width = max(1, _COPIED // (len(left) + len(right)))
    for start in range(0, left.shape[1], width):
        part = left[:, start : start + width].double()
        other = part if right is left else right[:, start : start + width].double()
        total.addmm_(part, other.T)
    return total.cpu().numpy()


def _at(rows: range) -> slice:
    return slice(rows.start, rows.stop)


def _require_finite(gram: Float64[np.ndarray, "example example"]) -> None:
    bad = np.flatnonzero(~np.isfinite(np.diag(gram)))
    if bad.size:
        shown = ", ".join(map(str, bad[:_SHOWN])) + (", …" if bad.size > _SHOWN else "")
        raise TaskError(
            f"The gradients of {bad.size} of {len(gram)} sampled examples are not finite (number {shown} of the "
            "sample), so they have no influence to compare. Leave this checkpoint out: training may have diverged."
        )
