"""Examples as points: two examples are as near as their points are, whatever is compared.

    l2       |x - y|, over several checkpoints the root of the mean of its squares
    cosine   1 - <x, y> / (|x| |y|), over several checkpoints the mean

Both are functions of the squared Euclidean distance of points, so that one search serves all: the chosen checkpoints
side by side, divided by the root of their number; for cosine each scaled to length 1 first, as |u - v|² = 2 - 2 <u, v>.

What has length 0 has no direction, and is at cosine distance 1 from all, its like included. So every checkpoint gets
two coordinates more: such a row of the store lies along the first of them, such a query along the second.

Angles that are equal come out of float64 equal but for its rounding, which would then choose among them. So squared
distances are told apart by no less than `GRAIN` for cosine: ties are ties, and the lower row stands first.

Why the mean over checkpoints and not the last one: an interpolating model's last checkpoint tells little about single
examples. Gradients are compared by direction alone: their lengths say how badly an example is learnt, not what it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Shaped
from torch import Tensor

from gradstore.errors import QueryError, ShapeError, StoreCorruptError
from gradstore.search.rows import BLOCK_BYTES, LatentRows, SketchRows, block_rows_within, to_device
from gradstore.search.searchable import Coverage, Searchable

GRAIN = 2.0**-46

Metric = Literal["l2", "cosine"]
SpaceName = Literal["latent", "gradient"]


@runtime_checkable
class PointRows(SketchRows, LatentRows, Protocol):
    """What a store gives of its examples: sketches and latents, by range and by number."""

    def latent_rows(self, checkpoint: int, indices: Int[np.ndarray, " row"]) -> Float[np.ndarray, "row d_latent"]: ...


@dataclass(frozen=True, eq=False)
class Space:
    """The examples of a store as points, at chosen checkpoints; of an unfinished store those that are done."""

    rows: PointRows
    found: Searchable
    """which checkpoints and rows"""
    name: SpaceName
    metric: Metric

    @classmethod
    def of(
        cls,
        rows: PointRows,
        name: SpaceName,
        metric: Metric,
        checkpoints: Sequence[int] | None = None,
        *,
        require_complete: bool = False,
    ) -> Space:
        """A space over these rows.

        Args:
            checkpoints: numbers of those compared, negative ones from the end; all by default.
            require_complete: refuse an unfinished store.

        Raises:
            QueryError: an unknown space or metric, a checkpoint that there is not, l2 between gradients.
            StoreIncompleteError: nothing is done yet, or not all and all is required.
        """
        _check(name, metric)
        return cls(rows, Searchable.of(rows, checkpoints, require_complete=require_complete), name, metric)

    @property
    def n_examples(self) -> int:
        """All rows of the store, done or not."""
        return self.found.n_examples

    @property
    def checkpoints(self) -> tuple[int, ...]:
        return self.found.checkpoints

    @property
    def coverage(self) -> Coverage:
        return self.found.coverage

    def width(self) -> int:
        """Coordinates of a point."""
        first = next(self.blocks(1))
        return int(self.points(*first).shape[1])

    def blocks(self, rows: int | None = None) -> Iterator[tuple[int, int]]:
        """(start, stop) of the rows that are done, ascending; by default as many at once as take 64 MiB of points."""
        return self.found.blocks(block_rows_within(8 * self.width()) if rows is None else rows)

    def points(
        self,
        start: int,
        stop: int,
        *,
        asking: bool = False,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> Float[Tensor, "row width"]:
        """Points of a range of rows; `asking` for those of queries, see the module.

        Raises:
            StoreCorruptError: numbers that are not finite.
        """
        read = self.rows.latents if self.name == "latent" else self.rows.unit_sketches
        points = as_points((read(t, start, stop) for t in self.checkpoints), self.metric, asking, dtype, device)
        if not torch.isfinite(points).all():
            raise StoreCorruptError(
                f"{self.name.capitalize()}s of rows {start} to {stop - 1} are not all finite numbers; a store never "
                "holds such rows. Run: gradstore verify STORE"
            )
        return points

    def points_at(
        self,
        indices: Int[np.ndarray, " row"],
        *,
        asking: bool = False,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> Float[Tensor, "row width"]:
        """Points of scattered rows, in their order."""
        read = self.rows.latent_rows if self.name == "latent" else self.rows.sketch_rows
        return as_points((read(t, indices) for t in self.checkpoints), self.metric, asking, dtype, device)

    def queries(
        self, values: Float[np.ndarray, "checkpoint query d"], device: torch.device | str = "cpu"
    ) -> Float64[Tensor, "query width"]:
        """Queries from their own latents (or sketches) at the same checkpoints.

        Raises:
            ShapeError: another number of checkpoints or of dimensions than the store has.
            QueryError: NaN or infinity.
        """
        what, width = self._stored()
        if values.shape[2] != width:
            raise ShapeError(
                f"The queries' {what} have {values.shape[2]} dimensions; the store's have {width}. "
                "Encode them with the store's own model."
            )
        if len(values) != len(self.checkpoints):
            raise ShapeError(
                f"The queries' {what} are of {len(values)} checkpoints; {len(self.checkpoints)} are to be compared. "
                "Give [checkpoint, query, d], one for each."
            )
        if not np.isfinite(values).all():
            raise QueryError(f"The queries' {what} hold NaN or infinity; expected finite numbers.")
        return as_points(values, self.metric, True, torch.float64, device)

    @property
    def grain(self) -> float:
        """By how much squared distances must differ to count as different."""
        return GRAIN if self.metric == "cosine" else 0.0

    def sq_distances(
        self, asking: Float64[Tensor, "pair width"], points: Float64[Tensor, "pair width"]
    ) -> Float64[Tensor, " pair"]:
        """|q - x|² of each pair by differences: the one way in which every distance that is told is measured."""
        squares: Tensor = (asking - points).square_().sum(dim=1)
        return squares.div_(self.grain).round_().mul_(self.grain) if self.grain else squares

    def distances(self, squares: Float64[Tensor, "*shape"]) -> Float64[Tensor, "*shape"]:
        """What the metric says of points whose squared Euclidean distances are these."""
        return squares.sqrt() if self.metric == "l2" else squares / 2

    def _stored(self) -> tuple[str, int]:
        """What is read of a row at a checkpoint, and its length."""
        start, stop = next(self.found.blocks(1))
        read = self.rows.latents if self.name == "latent" else self.rows.unit_sketches
        return ("latents" if self.name == "latent" else "sketches"), read(self.checkpoints[0], start, stop).shape[1]


def rows_of_distances(width: int) -> int:
    """How many differences of points fit into 64 MiB at once."""
    return max(1, BLOCK_BYTES // (8 * width))


def as_points(
    parts: Iterable[Shaped[np.ndarray, "row d"]],
    metric: Metric,
    asking: bool,
    dtype: torch.dtype,
    device: torch.device | str,
) -> Float[Tensor, "row width"]:
    """Points from one array a checkpoint; see the module."""
    laid = [to_device(part, dtype, device) for part in parts]
    if metric == "cosine":
        laid = [_directions(part, asking) for part in laid]
    return torch.cat(laid, dim=1).div_(math.sqrt(len(laid))) if len(laid) > 1 else laid[0]


def _directions(rows: Float[Tensor, "row d"], asking: bool) -> Float[Tensor, "row d+2"]:
    # Divided by the largest coordinate first: squares of float32 latents neither overflow nor underflow then.
    largest = torch.linalg.vector_norm(rows, ord=torch.inf, dim=1, keepdim=True)
    nothing = largest == 0
    laid = torch.zeros(len(rows), rows.shape[1] + 2, dtype=rows.dtype, device=rows.device)
    units = torch.div(rows, largest.masked_fill(nothing, 1.0), out=laid[:, :-2])
    units /= torch.linalg.vector_norm(units, dim=1, keepdim=True).masked_fill_(nothing, 1.0)
    laid[:, -1 if asking else -2] = nothing[:, 0]
    return laid


def _check(name: str, metric: str) -> None:
    if name not in get_args(SpaceName):
        raise QueryError(f"There is no space {name!r}; use one of {', '.join(get_args(SpaceName))}.")
    if metric not in get_args(Metric):
        raise QueryError(f"metric={metric!r} is unknown; use one of {', '.join(get_args(Metric))}.")
    if name == "gradient" and metric != "cosine":
        raise QueryError(
            "Gradients are compared by metric=cosine: a store keeps their directions and lengths apart. "
            "For influence, which has lengths in it, use proponents."
        )
