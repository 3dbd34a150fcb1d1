"""The graph stage: the examples of one shard -> the nearest examples of each, one file.

A unit reads what it is asked from the graph's plan on disk, as a sketch unit reads it from the store's manifest, and
either compares its rows with all rows, block by block, or with those of the cells nearest to each. What float32
cannot decide is searched again in float64, so that `exact` means exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Int64

from gradstore.errors import IndexNotFoundError
from gradstore.search.cells import COPY_ROUNDING, Cells
from gradstore.search.graph import GraphFiles, GraphPlan, space_of
from gradstore.search.nearest import nearest_points
from gradstore.search.screen import Found, Screen
from gradstore.search.space import Space, SpaceName
from gradstore.store import Store
from gradstore.store.place import Location
from gradstore_pipelines.stage import ALL_CHECKPOINTS, Unit, UnitRecord


@dataclass(frozen=True)
class GraphStage:
    """Finds the nearest examples of every example of a store, by the plan that `build_graph` wrote."""

    store: Location
    parameters: str
    """the set of parameters whose gradients are compared"""
    space: SpaceName
    device: str = "cpu"
    name: str = "graph"

    @property
    def row_bytes(self) -> int:
        return self._opened()[1].k * 12

    def units(self) -> Iterator[Unit]:
        files, plan = self._opened()
        return (Unit(ALL_CHECKPOINTS, shard) for shard in files.pending(plan))

    def run_unit(self, unit: Unit, advance: Callable[[int], None] | None = None) -> UnitRecord:
        files, plan = self._opened()
        span = files.store.shard_range(unit.shard)
        if not files.is_done(plan, unit.shard):
            space = space_of(files.store, plan)
            found = _nearest(space, span, plan, files, self.device)
            files.write(plan, unit.shard, found.indices, found.distances)
        if advance is not None:
            advance(len(span))
        return UnitRecord(unit, len(span))

    def blame(self, unit: Unit) -> list[str]:
        """No example's: all rows were found good when the store was made."""
        return []

    def _opened(self) -> tuple[GraphFiles, GraphPlan]:
        files = GraphFiles(Store.open(self.store).of_set(self.parameters), self.space)
        plan = files.plan()
        if plan is None:
            raise IndexNotFoundError(f"'{self.store}' has no plan of a graph of its {self.space}s. Call build_graph.")
        return files, plan


def _nearest(space: Space, span: range, plan: GraphPlan, files: GraphFiles, device: str) -> Found:
    exact = plan.method == "exact"
    rounding = 0.0 if exact else COPY_ROUNDING
    screen = Screen(space, span.start, span.stop, plan.k, rounding=rounding, device=device)
    if exact:
        _see_all(screen, space, device)
    else:
        _see_cells(screen, Cells.open(files.cells), device)
    found = screen.found()
    doubtful = ~(found.filled & found.certain if exact else found.filled)
    return _searched_again(space, span, found, doubtful, plan.k, device)


def _see_all(screen: Screen, space: Space, device: str) -> None:
    for start, stop in space.blocks():
        screen.see(screen.centred(space.points(start, stop, device=device)), np.arange(start, stop))


def _see_cells(screen: Screen, cells: Cells, device: str) -> None:
    """Each cell once, for all rows that ask for it."""
    probes = cells.probes(screen.queries.cpu())
    owners = np.repeat(np.arange(len(probes)), probes.shape[1])
    order = np.argsort(probes, axis=None, kind="stable")
    asked = np.searchsorted(probes.reshape(-1)[order], np.arange(cells.n_cells + 1))
    for cell in np.flatnonzero(np.diff(asked)).tolist():
        numbers, points = cells.members(cell)
        if numbers.size:
            which = owners[order[asked[cell] : asked[cell + 1]]]
            screen.see(screen.centred(torch.from_numpy(points.copy()).to(device).float()), numbers, which)


def _searched_again(
    space: Space, span: range, found: Found, doubtful: Bool[np.ndarray, " row"], k: int, device: str
) -> Found:
    """With the rows that are in doubt searched exactly."""
    if not doubtful.any():
        return found
    places: Int64[np.ndarray, " row"] = np.flatnonzero(doubtful)
    rows = span.start + places
    queries = space.points_at(rows, asking=True, device=device)
    indices, distances = found.indices.copy(), found.distances.copy()
    indices[places], distances[places] = nearest_points(space, queries, k, exclude=rows.tolist())
    return replace(found, indices=indices, distances=distances)
