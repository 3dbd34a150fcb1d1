"""What a batch job asks of the system that runs it: the `[submit]` table of a recipe."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from gradstore_pipelines.settings_error import SettingsError

System = Literal["slurm", "pbs", "sge", "lsf"]

_TIME = re.compile(r"(\d+):([0-5]\d):([0-5]\d)")


@dataclass(frozen=True, kw_only=True)
class SubmitSettings:
    """`[submit]`; the string under a field is its documentation."""

    system: System = "slurm"
    """Whose script: slurm, pbs, sge or lsf."""
    jobs: int = 1
    """Jobs that work on the same store, shard by shard, each where the system puts it (SLURM only)."""
    cpus: int = 1
    """Cores of a job: one a worker of the build, and one for the process that feeds them."""
    memory: str | None = None
    """Memory of a job, such as 8GB; by default what the system gives."""
    gpus: int = 0
    """GPUs of a job (SLURM only; elsewhere use directives)."""
    time: str = "12:00:00"
    """Hours:minutes:seconds that a job may run before it makes room and is queued again."""
    queue: str | None = None
    """Partition or queue."""
    account: str | None = None
    """Who is charged."""
    directives: tuple[str, ...] = ()
    """Further lines for the system, without its prefix, such as --constraint=skylake."""
    setup: tuple[str, ...] = ()
    """Commands before gradstore, such as module load cuda."""
    restarts: int = 100
    """How often a job that had to stop is queued again (SLURM only)."""
    grace: int = 120
    """Seconds before the end in which a job finishes the shard in hand."""

    def __post_init__(self) -> None:
        for name, least in (("jobs", 1), ("cpus", 1), ("gpus", 0), ("restarts", 0), ("grace", 1)):
            if getattr(self, name) < least:
                raise SettingsError(f"[submit] {name} is {getattr(self, name)}; it must be at least {least}.")
        if self.seconds() <= self.grace:
            raise SettingsError(
                f"[submit] time is {self.time} and grace {self.grace} seconds: nothing would be done. Allow more time."
            )
        if self.system != "slurm" and (self.jobs > 1 or self.gpus):
            raise SettingsError(
                f"[submit] jobs and gpus are for SLURM, and system is {self.system}. Say it in directives instead."
            )
        broken = [line for line in (*self.directives, *self.setup) if "\n" in line]
        if broken:
            raise SettingsError(f"[submit] {broken[0]!r} is more than one line. Give a list of lines.")

    def seconds(self) -> int:
        """The time as a number; SettingsError where it is not hours:minutes:seconds."""
        found = _TIME.fullmatch(self.time)
        if found is None:
            raise SettingsError(f"[submit] time is {self.time!r}; expected hours:minutes:seconds, such as 12:00:00.")
        hours, minutes, seconds = map(int, found.groups())
        return 3600 * hours + 60 * minutes + seconds
