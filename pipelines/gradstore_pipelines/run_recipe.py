"""`run`: the stages of a recipe, one after the other, each skipped where it is finished."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gradstore_pipelines.estimate import Estimate, estimate
from gradstore_pipelines.progress import Reporter, Silent
from gradstore_pipelines.recipe import Recipe
from gradstore_pipelines.recipe_stages import STAGES, RecipeStage, stages_of


@dataclass(frozen=True)
class Planned:
    """A stage as it stands before a run."""

    stage: str
    is_done: bool
    values: Mapping[str, Any]
    """what it was asked, beside the defaults"""


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    stages: tuple[Planned, ...]
    estimate: Estimate | None
    """of training and build; None where both are finished"""

    def to_json(self) -> dict[str, Any]:
        guess = None if self.estimate is None else self.estimate.to_json()
        return {"stages": [asdict(stage) for stage in self.stages], "estimate": guess}


@dataclass(frozen=True)
class Ran:
    """What a run did about a stage."""

    stage: str
    did: bool
    """False where it was finished already"""
    seconds: float


def plan_recipe(
    recipe: Recipe, reporter: Reporter | None = None, until: str | None = None, *, seconds_before: float = 0.0
) -> Plan:
    """Say what `run_recipe` would do; leaves nothing behind.

    Args:
        until: the last stage to run; by default all.
        seconds_before: what this process has taken to come here, as the run's will.

    Raises:
        what `build` would raise of data, model and settings.
    """
    stages = tuple(Planned(stage.name, stage.is_done(), stage.values) for stage in _chosen(recipe, until))
    unbuilt = not all(planned.is_done for planned in stages if planned.stage in ("train", "build"))
    return Plan(stages, estimate(recipe.build, reporter, seconds_before=seconds_before) if unbuilt else None)


def run_recipe(recipe: Recipe, reporter: Reporter | None = None, until: str | None = None) -> tuple[Ran, ...]:
    """Run the stages that are not finished.

    Args:
        until: the last stage to run; by default all.

    Raises:
        what the stages raise; what is finished stays so, and the next run goes on from there.
    """
    reporter, stages = reporter or Silent(), _chosen(recipe, until)
    return tuple(_run(stage, f"{number} of {len(stages)}", reporter) for number, stage in enumerate(stages, start=1))


def _chosen(recipe: Recipe, until: str | None) -> list[RecipeStage]:
    """The stages up to and with `until`."""
    stages = list(stages_of(recipe))
    if until is None:
        return stages
    after = set(itertools.dropwhile(lambda name: name != until, STAGES)) - {until}
    return [stage for stage in stages if stage.name not in after]


def _run(stage: RecipeStage, number: str, reporter: Reporter) -> Ran:
    start = time.perf_counter()
    did = stage.run(reporter)
    reporter.say(f"Stage {number}, {stage.name}: {'done' if did else 'was finished already'}.")
    return Ran(stage.name, did, time.perf_counter() - start)
