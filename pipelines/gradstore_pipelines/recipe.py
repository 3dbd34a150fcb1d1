"""A recipe: everything that a run does, as a text file that is kept beside the results.

    description = "Photos, ranked by a VAE trained on them"
    source = "photos"                # the data, the model, the store: what all stages share
    store = "photos.store"

    [train]                          # where the checkpoints come from: a training, or `checkpoints` that are given
    epochs = 20

    [build]                          # the other settings of `gradstore build`
    workers = 4

    [cluster]                        # where it sketches, if not here: see `cluster_table`

    [index]                          # these stages run when their tables are there; twice with two [[rank]]
    [rank]
    output = ["suspicious.csv", "suspicious.parquet"]
    [report]
    output = "suspicious.html"

A recipe is checked as a whole before anything runs: a misspelt name in `[report]` must not show after the build.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gradstore.errors import GradstoreError
from gradstore_pipelines.cluster_table import ClusterTable
from gradstore_pipelines.recipe_files import recipe_document
from gradstore_pipelines.recipe_settings import IndexSettings, RankSettings, ReportSettings
from gradstore_pipelines.settings import BuildSettings
from gradstore_pipelines.submit_settings import SubmitSettings
from gradstore_pipelines.typed_values import RecipeError, require_known, settings_of, value_of

Settings = TypeVar("Settings", IndexSettings, RankSettings, ReportSettings)

SHARED = ("source", "labels", "image_size", "on_corrupt", "store", "model", "device", "seed")
"""Settings of the build that stand at the top."""
OF_TRAINING = ("checkpoints", "learning_rate", "epochs", "n_checkpoints", "train_batch_size")
"""Settings of the build that stand in `[train]`."""
OF_BUILD = tuple(field.name for field in dataclasses.fields(BuildSettings) if field.name not in (*SHARED, *OF_TRAINING))
"""The others, which stand in `[build]`; its `cluster` names a file, where there is no table `[cluster]`."""
TABLES = ("train", "build", "cluster", "index", "rank", "report", "submit")
_HOME = dict.fromkeys(OF_TRAINING, "[train]") | dict.fromkeys(OF_BUILD, "[build]")
_HOME |= dict.fromkeys(SHARED, "the top of the recipe, above all tables")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a run does, checked."""

    name: str
    description: str
    build: BuildSettings
    """training and build; where they run is in it"""
    index: tuple[IndexSettings, ...] = ()
    rank: tuple[RankSettings, ...] = ()
    report: tuple[ReportSettings, ...] = ()
    submit: SubmitSettings = dataclasses.field(default_factory=SubmitSettings)

    def __post_init__(self) -> None:
        """What no stage alone can know."""
        stages: list[IndexSettings | RankSettings | ReportSettings] = [*self.index, *self.rank, *self.report]
        for stage in stages:
            if stage.parameters is not None and stage.parameters not in self.build.parameters:
                raise RecipeError(
                    f"A stage asks for gradients of {stage.parameters!r}; [build] parameters are "
                    f"{', '.join(self.build.parameters)}. Add it there, or name one of those."
                )
        twice = [path for path, count in Counter(self.outputs()).items() if count > 1]
        if twice:
            raise RecipeError(f"'{twice[0]}' is written by more than one stage. Give each an output of its own.")

    def outputs(self) -> list[Path]:
        """Files that the stages after the build write."""
        return [*(path for rank in self.rank for path in rank.output), *(report.output for report in self.report)]


def read_recipe(name: str, changes: Iterable[str] = ()) -> Recipe:
    """A recipe by its path or name, with `changes` such as `build.workers=4`.

    Raises:
        RecipeError: there is none, or it says what no stage understands.
        SettingsError: a value out of its range.
    """
    try:
        return recipe_of(recipe_document(name, changes), name)
    except GradstoreError as error:
        error.add_note(f"In the recipe '{name}'.")
        raise


def recipe_of(document: Mapping[str, Any], name: str) -> Recipe:
    """The recipe that these values describe."""
    require_known(document, ("description", *SHARED, *TABLES), "The top of a recipe", _HOME)
    return Recipe(
        name=Path(name).name.removesuffix(".toml"),
        description=value_of(document.get("description", ""), str, "description"),
        build=_build(document),
        index=_stages(document, "index", IndexSettings),
        rank=_stages(document, "rank", RankSettings),
        report=_stages(document, "report", ReportSettings),
        submit=settings_of(SubmitSettings, _table(document, "submit"), "[submit]"),
    )


def _build(document: Mapping[str, Any]) -> BuildSettings:
    shared = {name: document[name] for name in SHARED if name in document}
    training, build = _table(document, "train"), _table(document, "build")
    require_known(training, OF_TRAINING, "[train]", _HOME)
    require_known(build, OF_BUILD, "[build]", _HOME)
    settings = settings_of(BuildSettings, {**shared, **training, **build}, "A recipe's")
    if "cluster" not in document:
        return settings
    table: Any = ClusterTable.of(_table(document, "cluster"))
    return dataclasses.replace(settings, cluster=table)


def _stages(document: Mapping[str, Any], name: str, kind: type[Settings]) -> tuple[Settings, ...]:
    tables = document.get(name, [])
    return tuple(
        settings_of(kind, _required_table(table, name), f"[{name}]")
        for table in (tables if isinstance(tables, list) else [tables])
    )


def _table(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return _required_table(document.get(name, {}), name)


def _required_table(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RecipeError(f"{name} is {value!r}; expected a table: a line [{name}], and its settings below.")
    return value
