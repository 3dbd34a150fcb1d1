"""What of a store is searched: chosen checkpoints, and of an unfinished store the rows that are done at all of them.

Why a snapshot: a build may commit shards while a search reads. What is done is listed once, so that the answer and
the share of the store it is said to cover are of the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float16, Float32, Float64, Int

from gradstore.errors import QueryError, StoreIncompleteError
from gradstore.search.rows import BLOCK_ROWS, GrowingRows, SketchRows, is_mapped, precise_sketches

_WHOLE = 1 << 40  # more rows than any shard has


@dataclass(frozen=True)
class Coverage:
    """How much of a store an answer is from."""

    n_searched: int
    n_examples: int

    @property
    def fraction(self) -> float:
        """1 where the store's build has finished."""
        return self.n_searched / self.n_examples if self.n_examples else 1.0

    @property
    def is_complete(self) -> bool:
        return self.n_searched == self.n_examples

    def __str__(self) -> str:
        """For a person.

        >>> print(Coverage(30, 40))
        30 of 40 examples (75.0 %)
        """
        shown = min(self.fraction, 0.999) if not self.is_complete else 1.0  # never 100 % while rows are missing
        return f"{self.n_searched} of {self.n_examples} examples ({100 * shown:.1f} %)"


@dataclass(frozen=True, eq=False)
class Searchable:
    """Rows of a store at some of its checkpoints, as `SketchRows`; rows outside `spans` have norm 0 and no block."""

    rows: SketchRows
    checkpoints: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]
    """(start, stop) of each shard that is done at all of these checkpoints, ascending"""

    @classmethod
    def of(
        cls, rows: SketchRows, checkpoints: Sequence[int] | None = None, *, require_complete: bool = False
    ) -> Searchable:
        """What can be searched now.

        Args:
            rows: a store, finished or not.
            checkpoints: numbers of those to search, negative ones from the end; all by default.
            require_complete: refuse an unfinished store instead of searching what is done.

        Raises:
            QueryError: a checkpoint that the store has not, one named twice, or none.
            StoreIncompleteError: nothing is done yet, or not all and all is required.
        """
        if isinstance(rows, cls):
            return rows if checkpoints is None else cls.of(rows.rows, [rows.checkpoints[t] for t in checkpoints])
        chosen = chosen_checkpoints(checkpoints, rows.n_checkpoints)
        found = cls(rows, chosen, _done_everywhere(rows, chosen))
        missing = found.n_examples - found.coverage.n_searched
        if missing and (require_complete or not found.spans):
            raise StoreIncompleteError(
                f"The store is not finished: at checkpoints {', '.join(map(str, chosen))} it has {found.coverage}. "
                "Run the same build command again: it continues where it stopped."
            )
        return found

    @property
    def coverage(self) -> Coverage:
        return Coverage(sum(stop - start for start, stop in self.spans), self.n_examples)

    @property
    def n_examples(self) -> int:
        """All rows of the store, done or not."""
        return self.rows.n_examples

    @property
    def n_checkpoints(self) -> int:
        return len(self.checkpoints)

    @property
    def d_sketch(self) -> int:
        return self.rows.d_sketch

    @property
    def learning_rates(self) -> Float64[np.ndarray, " checkpoint"]:
        return self.rows.learning_rates[list(self.checkpoints)]

    def done(self) -> Bool[np.ndarray, " example"]:
        """Which rows can be found."""
        done = np.zeros(self.n_examples, dtype=np.bool_)
        for start, stop in self.spans:
            done[start:stop] = True
        return done

    def blocks(self, rows: int = BLOCK_ROWS) -> Iterator[tuple[int, int]]:
        for begin, end in self.spans:
            yield from ((start, min(start + rows, end)) for start in range(begin, end, rows))

    def unit_sketches(self, checkpoint: int, start: int, stop: int) -> Float16[np.ndarray, "row d_sketch"]:
        return self.rows.unit_sketches(self.checkpoints[checkpoint], start, stop)

    def mapped_sketches(self, checkpoint: int, start: int, stop: int) -> Float16[np.ndarray, "row d_sketch"]:
        """Without a copy where the store can."""
        return self._look(self.checkpoints[checkpoint], start, stop)

    @property
    def maps_sketches(self) -> bool:
        return is_mapped(self.rows)

    def precise_sketches(self, checkpoint: int, start: int, stop: int) -> Float32[np.ndarray, "row d_sketch"]:
        return precise_sketches(self.rows, self.checkpoints[checkpoint], start, stop)

    @cached_property
    def _look(self) -> Callable[[int, int, int], Float16[np.ndarray, "row d_sketch"]]:
        return self.rows.mapped_sketches if is_mapped(self.rows) else self.rows.unit_sketches

    def sketch_rows(self, checkpoint: int, indices: Int[np.ndarray, " row"]) -> Float16[np.ndarray, "row d_sketch"]:
        return self.rows.sketch_rows(self.checkpoints[checkpoint], indices)

    def norms(self, checkpoint: int) -> Float32[np.ndarray, " example"]:
        number = self.checkpoints[checkpoint]
        if self.coverage.is_complete or not isinstance(self.rows, GrowingRows):
            return self.rows.norms(number)
        norms = np.zeros(self.n_examples, dtype=np.float32)
        for start, stop in self.spans:
            norms[start:stop] = self.rows.norms(number, start, stop)
        return norms


def chosen_checkpoints(checkpoints: Sequence[int] | None, n_checkpoints: int) -> tuple[int, ...]:
    """Numbers from 0 on; negative ones count from the end, none means all.

    Raises:
        QueryError: a checkpoint that there is not, one named twice, or an empty list.
    """
    known = range(n_checkpoints)
    if checkpoints is None:
        return tuple(known)
    strange = [t for t in checkpoints if not -n_checkpoints <= t < n_checkpoints]
    if strange or not len(checkpoints):
        found = f"not {strange[0]}" if strange else "and none was named"
        raise QueryError(f"The store has checkpoints 0 to {n_checkpoints - 1}, {found}. Name some of these.")
    chosen = tuple(known[t] for t in checkpoints)
    if len(set(chosen)) < len(chosen):
        raise QueryError(f"Checkpoints {', '.join(map(str, chosen))} name one twice. Name each once.")
    return chosen


def _done_everywhere(rows: SketchRows, checkpoints: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Shards that are done at all of these checkpoints."""
    if not isinstance(rows, GrowingRows):
        return tuple(rows.blocks(_WHOLE))
    done = [set(rows.committed_blocks(t, _WHOLE)) for t in checkpoints]
    return tuple(sorted(set.intersection(*done)))
