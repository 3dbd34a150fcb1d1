"""`gradstore run`: the stages of a recipe, from data to a ranking."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gradstore_cli.options import JsonOption

if TYPE_CHECKING:
    from gradstore_pipelines.recipe import Recipe
    from gradstore_pipelines.run_recipe import Plan

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A .toml file, or the name of a recipe that comes with gradstore.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a value, such as build.workers=4. Repeatable."),
]


def run(
    recipe: Annotated[
        str | None,
        typer.Argument(metavar="RECIPE", help="A .toml file, or the name of a recipe that comes with gradstore."),
    ] = None,
    changes: SetOption = None,
    until: Annotated[
        Literal["train", "build", "index", "rank", "report"] | None, typer.Option(help="The last stage to run.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print the plan and what it will take; leaves nothing behind.")
    ] = False,
    list_recipes: Annotated[bool, typer.Option("--list", help="Only list the recipes that there are.")] = False,
    show: Annotated[bool, typer.Option("--show", help="Only print the recipe, to be changed and kept.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run a recipe: train, build, index, rank and report as one file says.

    Stages that are finished are skipped: after an interruption the same
    command goes on. Paths in a recipe start where the command is run.

    Example:
      gradstore run --list
      gradstore run two-sets --set train.epochs=3 --set build.sketch_dim=64 --dry-run
      gradstore run two-sets --set train.epochs=3 --set build.sketch_dim=64
      gradstore run image-folder --show
    """
    from gradstore_pipelines.recipe import read_recipe
    from gradstore_pipelines.recipe_files import recipe_text

    if list_recipes:
        _print_recipes(as_json)
        return
    if recipe is None:
        raise typer.BadParameter("Give a recipe to run; --list names those that come with gradstore.")
    if show:
        typer.echo(recipe_text(recipe), nl=False)
        return
    asked = read_recipe(recipe, changes or ())
    _plan(asked, until, as_json) if dry_run else _run(asked, until, as_json)


def _plan(recipe: Recipe, until: str | None, as_json: bool) -> None:
    from gradstore_cli.progress import TerminalReporter
    from gradstore_cli.tables import print_json
    from gradstore_pipelines.run_recipe import plan_recipe

    plan = plan_recipe(recipe, TerminalReporter(), until, seconds_before=time.process_time())
    print_json(plan.to_json()) if as_json else _print_plan(plan)


def _run(recipe: Recipe, until: str | None, as_json: bool) -> None:
    from gradstore_cli.progress import TerminalReporter
    from gradstore_cli.tables import print_json
    from gradstore_pipelines.run_recipe import run_recipe

    reporter = TerminalReporter()
    ran = run_recipe(recipe, reporter, until)
    for path in recipe.outputs() if until is None else []:
        reporter.say(f"{path} is ready.")
    if as_json:
        print_json({"store": str(recipe.build.store), "stages": [asdict(stage) for stage in ran]})


def _print_plan(plan: Plan) -> None:
    from gradstore_cli.build import print_estimate
    from gradstore_cli.tables import Column, print_table

    rows = [
        (str(number), planned.stage, "finished" if planned.is_done else "to do", _values(planned.values))
        for number, planned in enumerate(plan.stages, start=1)
    ]
    print_table([Column("", "right"), Column("stage"), Column("state"), Column("values")], rows)
    if plan.estimate is not None:
        print_estimate(plan.estimate)


def _values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_value(value)}" for name, value in values.items())


def _value(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _print_recipes(as_json: bool) -> None:
    from gradstore_cli.tables import Column, print_json, print_table
    from gradstore_pipelines.recipe_files import recipe_document, recipe_names

    about = {name: str(recipe_document(name).get("description", "")) for name in recipe_names()}
    if as_json:
        print_json({"recipes": [{"name": name, "description": words} for name, words in about.items()]})
    else:
        print_table([Column("recipe"), Column("what it does")], list(about.items()))
