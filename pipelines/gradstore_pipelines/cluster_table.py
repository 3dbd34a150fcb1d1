"""`[cluster]`: the batch system whose jobs are the workers of a build.

One table for SLURM, PBS, SGE and LSF. It stands in a recipe, or in a TOML file of its own that `--cluster` names:

    [cluster]
    kind = "slurm"
    jobs = 8
    processes = 4
    memory = "16GB"
    walltime = "04:00:00"
    queue = "batch"
    directives = ["--gres=gpu:1"]
    prologue = ["module load cuda"]
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gradstore_pipelines.settings_error import SettingsError

_WALLTIME = re.compile(r"(\d+-)?\d+(:\d\d){0,2}")
_MEMORY = re.compile(r"\d+(\.\d+)?\s*[kMGT]i?B", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ClusterTable:
    """Jobs to ask for; the string under a field is its documentation."""

    kind: Literal["slurm", "pbs", "sge", "lsf"] = "slurm"
    """The batch system."""
    jobs: int = 1
    """Jobs to keep running: one that ends early, or is cancelled, is replaced."""
    processes: int = 1
    """Workers in a job, each of one thread; with GPUs one a GPU."""
    memory: str = "4GB"
    """Of a job, all its workers together."""
    walltime: str = "01:00:00"
    """Of a job."""
    queue: str | None = None
    """Queue or partition."""
    account: str | None = None
    """Account or project that is charged."""
    interface: str | None = None
    """Network interface of the workers and of this machine, such as ib0."""
    host: str | None = None
    """Address of this machine as the nodes reach it."""
    python: str | None = None
    """Python of the workers; by default this one's path."""
    directives: tuple[str, ...] = ()
    """Further lines of a job's header, without #SBATCH and the like."""
    prologue: tuple[str, ...] = ()
    """Shell commands before the workers start."""
    worker_arguments: tuple[str, ...] = ()
    """Further arguments of `dask worker`."""
    logs: Path | None = None
    """Folder for the jobs' logs, seen by all nodes; by default build/jobs in the store's folder."""

    def __post_init__(self) -> None:
        for name in ("jobs", "processes"):
            if getattr(self, name) < 1:
                raise SettingsError(f"[cluster] {name} is {getattr(self, name)}; it must be at least 1.")
        if not _WALLTIME.fullmatch(self.walltime):
            raise SettingsError(f"[cluster] walltime is {self.walltime!r}; write it like 04:00:00.")
        if not _MEMORY.fullmatch(self.memory):
            raise SettingsError(f"[cluster] memory is {self.memory!r}; write it like 16GB.")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ClusterTable:
        """From a parsed table; what it does not know is refused with the nearest name."""
        from gradstore_pipelines.typed_values import settings_of

        return settings_of(cls, values, "[cluster]")

    @classmethod
    def read(cls, path: Path) -> ClusterTable:
        """From a TOML file, in a table `[cluster]` or without one.

        Raises:
            SettingsError: no such file, no TOML, or what no field means.
        """
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SettingsError(f"--cluster '{path}': there is no such file.") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise SettingsError(f"--cluster '{path}' cannot be read as TOML: {error}.") from error
        return cls.of(document.get("cluster", document))
