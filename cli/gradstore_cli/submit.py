"""`gradstore submit`: a recipe as a batch job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gradstore_cli.options import JsonOption
from gradstore_cli.run import RecipeArgument, SetOption


def submit(
    recipe: RecipeArgument,
    changes: SetOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The script; by default gradstore-RECIPE.sh here."),
    ] = None,
    now: Annotated[bool, typer.Option("--now", help="Also hand the script over to the system.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a script that runs a recipe as a batch job of SLURM, PBS, SGE or LSF.

    The job survives preemption and its time limit: it stops with the shard in
    hand, is queued again, and goes on. It needs only this folder to be shared.
    The [submit] table of the recipe says what to ask for: time, cpus, memory,
    queue, gpus, jobs that share the work, and more.

    Example:
      gradstore submit two-sets --set submit.time=04:00:00
      gradstore submit two-sets --set submit.cpus=3 --set build.workers=2 -o job.sh
    """
    from gradstore.store.files import write_atomically
    from gradstore_cli.tables import print_json
    from gradstore_pipelines.recipe import read_recipe
    from gradstore_pipelines.submit import job_script
    from gradstore_pipelines.submit import submit as hand_over

    asked = read_recipe(recipe, changes or ())
    script = output or Path(f"gradstore-{asked.name}.sh")
    arguments = [recipe, *(word for change in changes or () for word in ("--set", change))]
    write_atomically(script, job_script(asked, arguments, Path.cwd()).encode())
    said = hand_over(script, asked.submit.system) if now else None
    typer.echo(f"Wrote {script}." if said is None else f"Wrote {script}, and handed it over: {said}", err=True)
    if as_json:
        print_json({"script": str(script), "system": asked.submit.system, "submitted": said})
