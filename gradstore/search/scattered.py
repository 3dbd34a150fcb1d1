"""Exact dot products of a query with scattered rows of a store, looked at where they lie in the page cache.

Maps of shards are kept from search to search: opening those of 61 shards takes 4 ms, and letting them go as long. Pages
that were looked at count as this process's, up to the size of the store after very many questions; they are the page
cache's own, and the system takes them back when somebody needs the memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16, Float32, Float64, Int64

from gradstore.search.rows import MappedRows, SketchRows, is_mapped
from gradstore.search.scan_compiled import is_usable

_WHOLE = 1 << 40  # more rows than any shard has


class ScatteredRows:
    """Rows of a store by number; their products with a query are exact (`gradstore.search.question`)."""

    def __init__(self, rows: SketchRows) -> None:
        self._rows = rows
        self._spans = list(rows.blocks(_WHOLE))
        self._ends = np.array([stop for _, stop in self._spans])
        self._maps: dict[tuple[int, int], Float16[np.ndarray, "row d_sketch"]] = {}

    def dots(
        self, checkpoint: int, indices: Int64[np.ndarray, " row"], query: Float32[np.ndarray, " d_sketch"]
    ) -> Float64[np.ndarray, " row"]:
        """<u(q), u(x)> at a checkpoint, of rows in ascending order; `query` is on the grid of `Question`."""
        if not is_mapped(self._rows):
            return _dots(self._rows.sketch_rows(checkpoint, indices), np.arange(len(indices)), query)
        parts = [
            _dots(self._map(self._rows, checkpoint, shard), local, query) for shard, local in self._by_shard(indices)
        ]
        return np.concatenate(parts) if parts else np.empty(0)

    def _by_shard(self, indices: Int64[np.ndarray, " row"]) -> Iterator[tuple[int, Int64[np.ndarray, " row"]]]:
        """(shard, row numbers within it) of ascending rows."""
        cuts = np.searchsorted(indices, self._ends)
        for shard in np.flatnonzero(np.diff(cuts, prepend=0)).tolist():
            first = cuts[shard - 1] if shard else 0
            yield shard, indices[first : cuts[shard]] - self._spans[shard][0]

    def _map(self, rows: MappedRows, checkpoint: int, shard: int) -> Float16[np.ndarray, "row d_sketch"]:
        found = self._maps.get((checkpoint, shard))
        if found is None:
            found = np.asarray(rows.mapped_sketches(checkpoint, *self._spans[shard]))
            self._maps[checkpoint, shard] = found
        return found


def _dots(
    units: Float16[np.ndarray, "shard_row d_sketch"],
    local: Int64[np.ndarray, " row"],
    query: Float32[np.ndarray, " d_sketch"],
) -> Float64[np.ndarray, " row"]:
    if is_usable():
        products = np.empty(len(local))
        _compiled_products()(units.view(np.uint16), local, query, products)
        return products
    chosen = torch.from_numpy(units[local]).double()
    return np.asarray((chosen @ torch.from_numpy(query).double()).numpy())


@functools.cache
def _compiled_products() -> Callable[..., None]:
    from gradstore.compiled import compiled
    from gradstore.search.kernels import exact_dot

    def products(bits: Any, local: Any, query: Any, out: Any) -> None:
        for i in range(len(local)):
            out[i] = exact_dot(bits[local[i]], query)

    return compiled(products)
