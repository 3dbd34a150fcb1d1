"""The stages of a recipe: train, build, index, rank, report.

Each knows whether it is finished from what lies on disk, so that a run which was stopped anywhere goes on there; and
running a finished one again does nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import gradstore
from gradstore.errors import StoreNotFoundError
from gradstore.ranking.export import export
from gradstore.store import Store
from gradstore.store.files import make_folder
from gradstore.store.kept import kept_rows
from gradstore.store.place import name_of
from gradstore_pipelines.build_store import build, is_trained, train_checkpoints
from gradstore_pipelines.completion import Completion
from gradstore_pipelines.progress import Reporter, following
from gradstore_pipelines.recipe import OF_TRAINING, Recipe
from gradstore_pipelines.recipe_settings import IndexSettings, RankSettings, ReportSettings, n_bytes
from gradstore_pipelines.report import write_report
from gradstore_pipelines.settings import BuildSettings

if TYPE_CHECKING:
    import pyarrow as pa

    from gradstore.api import GradientStore

STAGES = ("train", "build", "index", "rank", "report")


class RecipeStage(Protocol):
    """One step of a recipe, with its values."""

    @property
    def name(self) -> str: ...

    @property
    def values(self) -> Mapping[str, Any]:
        """What it was asked, beside the defaults, as JSON."""

    def is_done(self) -> bool:
        """Whether nothing is left to do, as far as a look at the disk tells."""

    def run(self, reporter: Reporter) -> bool:
        """Do what is left to do; whether there was anything."""


def stages_of(recipe: Recipe) -> Iterator[RecipeStage]:
    """The stages in their order; one that a recipe has several of, once for each."""
    yield Train(recipe.build)
    yield Build(recipe.build)
    yield from (Index(recipe.build, asked) for asked in recipe.index)
    yield from (Rank(recipe.build, asked) for asked in recipe.rank)
    yield from (Report(recipe.build, asked) for asked in recipe.report)


@dataclass(frozen=True)
class Train:
    """The first half of a build: the checkpoints."""

    build: BuildSettings
    name: str = "train"

    @property
    def values(self) -> Mapping[str, Any]:
        return {name: value for name, value in said(self.build).items() if name in OF_TRAINING or name == "model"}

    def is_done(self) -> bool:
        return is_trained(self.build)

    def run(self, reporter: Reporter) -> bool:
        return train_checkpoints(self.build, reporter)


@dataclass(frozen=True)
class Build:
    """The second half: every shard of the store. That the settings are those of the store is checked in any case."""

    build: BuildSettings
    name: str = "build"

    @property
    def values(self) -> Mapping[str, Any]:
        return {name: value for name, value in said(self.build).items() if name not in OF_TRAINING}

    def is_done(self) -> bool:
        store = _existing(self.build)
        return store is not None and store.is_complete

    def run(self, reporter: Reporter) -> bool:
        made = build(self.build, reporter).sketched_shards
        if made:
            reporter.say(f"Shards sketched by this run: {made:,}.")
        return made > 0


@dataclass(frozen=True)
class Index:
    """A search index."""

    build: BuildSettings
    asked: IndexSettings
    name: str = "index"

    @property
    def values(self) -> Mapping[str, Any]:
        return said(self.asked)

    def is_done(self) -> bool:
        store = _existing(self.build)
        return store is not None and store.is_complete and self._is_built(self._opened())

    def run(self, reporter: Reporter) -> bool:
        opened = self._opened()
        if self._is_built(opened):
            return False
        opened.build_index(self.asked.normalise, self.asked.kind, memory=n_bytes(self.asked.memory))
        return True

    def _opened(self) -> GradientStore:
        return gradstore.open(self.build.store, parameters=self.asked.parameters)

    def _is_built(self, opened: GradientStore) -> bool:
        return opened.has_index(self.asked.normalise, self.asked.kind)


@dataclass(frozen=True)
class _Ranked(ABC):
    """What tables and pages share: they are made from a ranking, and a record says that they are."""

    build: BuildSettings
    asked: RankSettings | ReportSettings

    @property
    def name(self) -> str:
        return "rank" if isinstance(self.asked, RankSettings) else "report"

    @property
    def values(self) -> Mapping[str, Any]:
        return said(self.asked)

    def is_done(self) -> bool:
        store = _existing(self.build)
        return store is not None and store.is_complete and self._completion(self._opened()).holds()

    def run(self, reporter: Reporter) -> bool:
        opened = self._opened()
        completion = self._completion(opened)
        if completion.holds():
            return False
        for path in completion.outputs:
            make_folder(path.absolute().parent)
        self._write(opened, _ranking(opened, self.asked, reporter))
        completion.record()
        return True

    def _opened(self) -> GradientStore:
        return gradstore.open(self.build.store, parameters=self.asked.parameters)

    def _completion(self, opened: GradientStore) -> Completion:
        output = self.asked.output
        outputs = output if isinstance(output, tuple) else (output,)
        rows = {"rows": kept_rows(opened.store).content_fingerprint(), "version": gradstore.__version__}
        return Completion(opened.store.folder, self.name, outputs, {**_json(asdict(self.asked)), **rows})

    @abstractmethod
    def _write(self, opened: GradientStore, table: pa.Table) -> None:
        """Write the outputs of a whole ranking, or of its top."""


class Rank(_Ranked):
    """The ranking as tables."""

    asked: RankSettings

    def _write(self, opened: GradientStore, table: pa.Table) -> None:
        for path in self.asked.output:
            export(table, path)


class Report(_Ranked):
    """The ranking as a page with pictures."""

    asked: ReportSettings

    def _write(self, opened: GradientStore, table: pa.Table) -> None:
        title = self.asked.title or f"Suspicious examples of {name_of(self.build.store)}"
        write_report(opened.store, table, self.asked.output, title)


def said(settings: Any) -> dict[str, Any]:
    """The settings that are not their defaults, as JSON."""
    return _json(
        {
            field.name: value
            for field in fields(settings)
            if (value := getattr(settings, field.name)) != field.default and value is not None
        }
    )


def _ranking(opened: GradientStore, asked: RankSettings | ReportSettings, reporter: Reporter) -> pa.Table:
    top = asked.top if isinstance(asked, RankSettings) else None
    with following(reporter, "signals", "rows") as progress:
        return opened.rank(by=asked.signal, top=top, progress=progress)


def _existing(settings: BuildSettings) -> Store | None:
    try:
        return Store.open(settings.store)
    except StoreNotFoundError:
        return None


def _json(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return said(value)
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
