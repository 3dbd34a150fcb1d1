"""A stage: one step of a pipeline, cut into units that can run anywhere, in any order, more than once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from gradstore.store.claims import Claims
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

    @property
    def key(self) -> str:
        """What a claim on it is called."""
        return f"{self.checkpoint}-{self.shard}"


@dataclass(frozen=True)
class UnitRecord:
    """What comes back of a unit: tiny, for the rows themselves never travel."""

    unit: Unit
    n_examples: int
    made: bool = True
    """False: it was done already"""


class Stage(Protocol):
    """Frozen and picklable. A stage never knows where its units run."""

    @property
    def name(self) -> str: ...

    @property
    def row_bytes(self) -> int:
        """What an example takes in the files that a unit writes."""

    def units(self) -> Iterator[Unit]:
        """What is still to do, in a fixed order."""

    def run_unit(self, unit: Unit, advance: Callable[[int], None] | None = None) -> UnitRecord:
        """Do one unit; doing it again changes nothing."""

    def blame(self, unit: Unit) -> Sequence[str]:
        """Ids of the examples for which a unit that failed cannot be done; none where it is not the examples."""


class Executor(Protocol):
    """Runs the units of a stage somewhere."""

    def run(self, stage: Stage, reporter: Reporter, *, total: int, done: int, claims: Claims | None = None) -> int:
        """Run every unit that is left, and return how many this run made.

        A unit that fails is reported at the end, when all others are done; what would fail them all alike (a full
        disk, data that are gone) is raised at once.

        Args:
            total: what units count, in examples.
            done: how much of it was done before.
            claims: of the builders that work on the same units; what others have in hand is waited for.

        Raises:
            BadExamplesError: names the examples for which units failed.
            WorkerError: units failed and no example is to blame, or the workers are gone.
            Stopped: it was asked to stop, and what was in hand is finished.
        """
