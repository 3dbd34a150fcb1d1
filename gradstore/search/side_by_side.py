"""All checkpoints' unit sketches of an example as one unit vector.

With each checkpoint's row scaled to length 1 and the whole divided by sqrt(n_checkpoints), a dot product of two
such vectors is the mean over checkpoints of the gradients' cosines. Formed block by block, never for all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from jaxtyping import Float16, Float32, Int

from gradstore.search.rows import SketchRows, block_rows_within

Blocks = Callable[[], Iterator[tuple[int, Float32[np.ndarray, "row d"]]]]
"""(first row, rows) in ascending order; called once for each pass."""


def unit_blocks(rows: SketchRows) -> Blocks:
    """Every example of the store, for `knn_distance(..., metric="cosine")`."""
    size = block_rows_within(4 * rows.n_checkpoints * rows.d_sketch)

    def blocks() -> Iterator[tuple[int, Float32[np.ndarray, "row d"]]]:
        for start, stop in rows.blocks(size):
            yield start, _side_by_side(rows.unit_sketches(t, start, stop) for t in range(rows.n_checkpoints))

    return blocks


def unit_reference(rows: SketchRows, indices: Int[np.ndarray, " row"]) -> Float32[np.ndarray, "row d"]:
    """Chosen examples of the store in the same form."""
    return _side_by_side(rows.sketch_rows(t, indices) for t in range(rows.n_checkpoints))


def _side_by_side(checkpoints: Iterable[Float16[np.ndarray, "row d_sketch"]]) -> Float32[np.ndarray, "row d"]:
    units = [_to_length_one(sketches.astype(np.float32)) for sketches in checkpoints]
    return np.concatenate(units, axis=1) / np.float32(np.sqrt(len(units)))


def _to_length_one(rows: Float32[np.ndarray, "row d"]) -> Float32[np.ndarray, "row d"]:
    """A sketch has about its gradient's length, not exactly. A row without direction (no gradient) becomes zero."""
    lengths = np.sqrt(np.einsum("rd,rd->r", rows, rows))[:, None]
    return np.asarray(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0))
