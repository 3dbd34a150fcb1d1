"""In process: one unit after the other."""

from __future__ import annotations

from gradstore_pipelines.progress import Reporter
from gradstore_pipelines.stage import Stage, UnitRecord


class LocalExecutor:
    """Runs units here; progress moves with every block of examples."""

    def run(self, stage: Stage, reporter: Reporter, *, total: int, done: int) -> list[UnitRecord]:
        with reporter.task(stage.name, total, "rows", done) as advance:
            return [stage.run_unit(unit, advance) for unit in stage.units()]
