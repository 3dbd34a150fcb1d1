"""In process: one unit after the other."""

from __future__ import annotations

import time

from gradstore.store.claims import Claims
from gradstore_pipelines.executors.faults import Failures
from gradstore_pipelines.executors.supply import Supply
from gradstore_pipelines.progress import Advance, Reporter
from gradstore_pipelines.stage import Stage, Unit
from gradstore_pipelines.stopping import Stopped, finishing

_LOOK_EVERY_S = 0.2


class LocalExecutor:
    """Runs units here; progress moves with every block of examples."""

    def run(self, stage: Stage, reporter: Reporter, *, total: int, done: int, claims: Claims | None = None) -> int:
        supply, failures, made = Supply(stage, claims, reporter.say), Failures(), 0
        task = reporter.task(stage.name, total, "rows", done, unit_bytes=stage.row_bytes)
        with finishing() as stop, task as advance:
            while not (stop.asked or failures.hopeless):
                unit = supply.take()
                if unit is not None:
                    made += _run(stage, unit, supply, failures, advance)
                elif supply.is_empty:
                    break
                else:
                    time.sleep(_LOOK_EVERY_S)
        failures.raise_any(stage.blame, here=True)
        if not supply.is_empty:
            raise Stopped(f"Stopped as asked, with the shard in hand finished: {made} made by this run.")
        return made


def _run(stage: Stage, unit: Unit, supply: Supply, failures: Failures, advance: Advance) -> bool:
    """Whether this made it."""
    try:
        record = stage.run_unit(unit, advance)
    except Exception as error:
        failures.add(unit, error)
        return False
    finally:
        supply.finish(unit)
    failures.done()
    return record.made
