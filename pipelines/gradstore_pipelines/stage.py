"""A stage: one step of a pipeline, cut into units that can run anywhere, in any order, more than once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from gradstore_pipelines.progress import Reporter

ALL_CHECKPOINTS = -1


@dataclass(frozen=True)
class Unit:
    """One shard of one checkpoint, or of `ALL_CHECKPOINTS` together."""

    checkpoint: int
    shard: int

    def __str__(self) -> str:
        shard = f"shard {self.shard}"
        return shard if self.checkpoint == ALL_CHECKPOINTS else f"checkpoint {self.checkpoint}, {shard}"


@dataclass(frozen=True)
class UnitRecord:
    """What comes back of a unit: tiny, for the rows themselves never travel."""

    unit: Unit
    n_examples: int


class Stage(Protocol):
    """Frozen and picklable. A stage never knows where its units run."""

    @property
    def name(self) -> str: ...

    def units(self) -> Iterator[Unit]:
        """What is still to do, in a fixed order."""

    def run_unit(self, unit: Unit, advance: Callable[[int], None] | None = None) -> UnitRecord:
        """Do one unit; doing it again changes nothing."""


class Executor(Protocol):
    """Runs the units of a stage somewhere."""

    def run(self, stage: Stage, reporter: Reporter, *, total: int, done: int) -> Sequence[UnitRecord]:
        """Run every unit that is left; `total` and `done` count what units count, for progress."""
