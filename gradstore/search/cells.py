"""Cells: rows that lie together stand together, so that a row's neighbours are sought in few of them.

    256 rows' exact neighbours -> how many cells hold the share of them that is asked for
    main directions of a few rows -> k-means of a sample -> each row's cell -> a copy of all rows in order of cells

Why a copy: a cell's rows are then one piece of one file, read in order; and all rows of a shard that ask for a cell
share one matrix product, where an index would scan the same rows for one query after the other. The copy takes about
as many bytes as the sketches (or latents) do, and goes when the graph is finished.

Why the number of cells to look at is measured: it is a property of the data. Of 20,000 gradients of Fashion-MNIST, 11
of 283 cells hold 95 % of the ten nearest; the less structure points have, the more cells it takes, up to all. Cells
are told apart by at most 64 main directions: what the rest holds hardly moves a cell.

Memory while building: 16 bytes an example, the sample that k-means takes (256 bytes each of 64 rows a cell), and
blocks of 64 MiB.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32, Int64
from torch import Tensor

from gradstore.search.nearest import nearest_points
from gradstore.search.screen import centre_of
from gradstore.search.space import Space
from gradstore.store.files import make_folder, replacing, write_errors

_DIRECTIONS = 64
_FOR_DIRECTIONS = 1024
_A_CELL = 64
"""rows of the sample that k-means takes a cell"""
_PROBED = 256
_SEED = 0

COPY_ROUNDING = 2.0**-14
"""Relative error of a product with a row of the copy: float16 is off by 2^-12 a coordinate, and errors cancel."""


@dataclass(frozen=True, eq=False)
class Cells:
    """Rows of a space in order of their cells; `folder` holds them, mapped."""

    folder: Path
    directions: Float32[Tensor, "width direction"]
    centre: Float32[Tensor, " width"]
    means: Float32[Tensor, "cell direction"]
    starts: Int64[np.ndarray, " cell_and_end"]
    n_probes: int
    """cells that are looked at for a row"""

    @property
    def n_cells(self) -> int:
        return len(self.means)

    def probes(self, points: Float32[Tensor, "row width"]) -> Int64[np.ndarray, "row probe"]:
        """The nearest cells of centred points."""
        scores = _scores(points @ self.directions, self.means)
        return torch.topk(scores, self.n_probes, dim=1).indices.numpy()

    def ranked(self, points: Float32[Tensor, "row width"]) -> Int64[np.ndarray, "row cell"]:
        """All cells, nearest first."""
        return torch.argsort(_scores(points @ self.directions, self.means), dim=1, descending=True).numpy()

    def members(self, cell: int) -> tuple[Int64[np.ndarray, " row"], Float[np.ndarray, "row width"]]:
        """Numbers (ascending) and points of a cell's rows."""
        span = slice(int(self.starts[cell]), int(self.starts[cell + 1]))
        return self._order[span].astype(np.int64), np.asarray(self._points[span])

    @functools.cached_property
    def _order(self) -> Int32[np.ndarray, " example"]:
        return np.asarray(np.load(self.folder / "order.npy", mmap_mode="r"))

    @functools.cached_property
    def _points(self) -> Float[np.ndarray, "example width"]:
        return np.asarray(np.load(self.folder / "points.npy", mmap_mode="r"))

    @classmethod
    def open(cls, folder: Path) -> Cells:
        """Open what `build_cells` wrote."""
        with np.load(folder / "cells.npz") as found:
            directions, centre, means = (torch.from_numpy(found[name]) for name in ("directions", "centre", "means"))
            return cls(folder, directions, centre, means, found["starts"], int(found["n_probes"]))

    @staticmethod
    def are_at(folder: Path) -> bool:
        """Whether they were written to the end."""
        return (folder / "cells.npz").is_file()


def build_cells(
    space: Space, folder: Path, k: int, recall: float, advance: Callable[[int], None] = lambda n: None
) -> Cells:
    """Cells that hold this share of the k nearest neighbours among those looked at, on a sample.

    Args:
        advance: told of every row that is read, of twice all.

    Raises:
        StoreWriteError: no room for the copy.
    """
    make_folder(folder)
    centre = centre_of(space).float()
    directions = _main_directions(space, centre)
    means = _k_means(space, directions, centre)
    cells = _assigned(space, directions, centre, means, advance)
    order = np.argsort(cells, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(cells, minlength=len(means)))])
    _write_copy(space, folder, order, advance)
    found = Cells(folder, directions, centre, means, starts, len(means))
    n_probes = _probes_needed(space, found, cells, k, recall)
    arrays = {"directions": directions.numpy(), "centre": centre.numpy(), "means": means.numpy(), "starts": starts}
    with write_errors(folder), replacing(folder / "cells.npz") as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, n_probes=np.array(n_probes), **arrays)
    return Cells.open(folder)


def n_cells_for(n_examples: int) -> int:
    """Twice the root: then choosing cells and looking into them cost alike."""
    return max(1, round(2 * math.sqrt(n_examples)))


def _sample(space: Space, count: int) -> Int64[np.ndarray, " row"]:
    chosen = np.random.default_rng(_SEED).choice(space.n_examples, min(count, space.n_examples), replace=False)
    return np.sort(chosen)


def _main_directions(space: Space, centre: Float32[Tensor, " width"]) -> Float32[Tensor, "width direction"]:
    """Along which the points of a sample differ most: eigenvectors of their products."""
    points = space.points_at(_sample(space, _FOR_DIRECTIONS)) - centre
    values, vectors = torch.linalg.eigh(points @ points.T)
    kept = (values > values[-1].clamp(min=1e-30) * 1e-10).nonzero()[-_DIRECTIONS:, 0]
    directions: Tensor = points.T @ (vectors[:, kept] / values[kept].sqrt())
    return directions.float()


def _k_means(
    space: Space, directions: Float32[Tensor, "width direction"], centre: Float32[Tensor, " width"]
) -> Float32[Tensor, "cell direction"]:
    import faiss

    wanted = n_cells_for(space.n_examples)
    rows = _sample(space, wanted * _A_CELL)
    parts = np.array_split(rows, -(-len(rows) // 4096))
    points = torch.cat([(space.points_at(part).float() - centre) @ directions for part in parts]).numpy()
    if not points.shape[1]:  # all points are one
        return torch.zeros(1, 0)
    n_cells = min(wanted, len(points))
    settings = {"niter": 10, "seed": _SEED + 1, "min_points_per_centroid": 1, "max_points_per_centroid": _A_CELL}
    means = faiss.Kmeans(points.shape[1], n_cells, **settings)
    means.train(points)
    return torch.from_numpy(np.array(means.centroids, dtype=np.float32))


def _assigned(
    space: Space,
    directions: Float32[Tensor, "width direction"],
    centre: Float32[Tensor, " width"],
    means: Float32[Tensor, "cell direction"],
    advance: Callable[[int], None],
) -> Int32[np.ndarray, " example"]:
    cells = np.empty(space.n_examples, np.int32)
    for start, points in _blocks(space, advance):
        cells[start : start + len(points)] = _scores((points - centre) @ directions, means).argmax(dim=1).numpy()
    return cells


def _blocks(space: Space, advance: Callable[[int], None]) -> Iterator[tuple[int, Float32[Tensor, "row width"]]]:
    for start, stop in space.blocks():
        yield start, space.points(start, stop, dtype=torch.float32)
        advance(stop - start)


def _scores(
    points: Float32[Tensor, "row direction"], means: Float32[Tensor, "cell direction"]
) -> Float32[Tensor, "row cell"]:
    """Higher for nearer cells."""
    return torch.addmm(-means.square().sum(dim=1) / 2, points, means.T)


def _write_copy(
    space: Space, folder: Path, order: Int64[np.ndarray, " example"], advance: Callable[[int], None]
) -> None:
    """Gradients, whose directions are at most 1 long, as float16; latents as they are stored."""
    dtype = np.float16 if space.name == "gradient" else np.float32
    with write_errors(folder):
        np.save(folder / "order.npy", order.astype(np.int32))
        shape = (space.n_examples, space.width())
        copy = np.lib.format.open_memmap(folder / "points.npy", mode="w+", dtype=dtype, shape=shape)
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        for start, points in _blocks(space, advance):
            copy[places[start : start + len(points)]] = points.numpy()
        copy.flush()


def _probes_needed(space: Space, cells: Cells, own: Int32[np.ndarray, " example"], k: int, recall: float) -> int:
    """How many of the nearest cells hold this share of the nearest neighbours of a sample of rows."""
    rows = _sample(space, _PROBED)
    asking = space.points_at(rows, asking=True)
    neighbours, _ = nearest_points(space, asking, k, exclude=rows.tolist())
    ranked = cells.ranked((asking - cells.centre).float())
    rank_of = np.argsort(ranked, axis=1)
    ranks = np.sort(np.take_along_axis(rank_of, own[neighbours].astype(np.int64), axis=1), axis=None)
    return int(ranks[max(0, int(np.ceil(recall * len(ranks))) - 1)]) + 1
