"""A user's own Task by name: modules, files, and what is said when a name leads nowhere."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from gradstore.errors import StoreMismatchError, TaskError, TaskNotFoundError
from gradstore.models import load_task, make_task, task_from_settings, task_settings
from gradstore.task import Task

SOURCE = """
from torch import nn
from gradstore import Task
import {helper}

class Mine(Task):
    def build(self):
        return nn.Linear({helper}.SIZE, 1)
    def loss(self, model, batch, noise):
        return model(batch.inputs).square().sum(1)
    def latent(self, model, batch):
        return batch.inputs

class NeedsArguments(Mine):
    def __init__(self, size):
        self.size = size

def factory():
    return Mine()

ready = Mine()
number = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a user's module `mine_X` and the helper module that it imports."""
    helper = f"helper_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{helper}.py").write_text("SIZE = 4")
    (tmp_path / f"mine_{helper}.py").write_text(SOURCE.format(helper=helper))
    (tmp_path / "model.py").write_text(SOURCE.format(helper=helper))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def module(folder: Path) -> str:
    return next(folder.glob("mine_*.py")).stem


@pytest.mark.parametrize("name", ["Mine", "factory", "ready"])
def test_a_class_a_factory_and_an_instance_all_lead_to_a_task(folder: Path, name: str) -> None:
    for location in (module(folder), "model.py", str(folder / "model.py")):
        assert isinstance(load_task(f"{location}:{name}"), Task)


def test_the_working_directory_does_not_shadow_what_is_imported_later(folder: Path) -> None:
    load_task(f"{module(folder)}:Mine")
    assert sys.path[0] != str(folder)
    assert sys.path[-1] == str(folder)  # imports inside the user's functions still work


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nosuchmodule:Thing", "There is no module 'nosuchmodule'.*run from the folder that holds your code"),
        ("nosuchfile.py:Thing", "There is no file nosuchfile.py"),
        ("model.py:Other", "has no 'Other'. It has .*Mine"),
        ("model.py:number", "is a int. Expected a gradstore.Task"),
        ("model.py:NeedsArguments", "without arguments raised TypeError.*Give every argument a default"),
        ("model.py:", "names no object. Expected module:Object"),
    ],
)
def test_a_name_that_leads_nowhere_says_why(folder: Path, name: str, message: str) -> None:
    with pytest.raises(TaskNotFoundError, match=message):
        load_task(name)


def test_code_that_fails_is_named_with_its_error(folder: Path) -> None:
    (folder / "broken.py").write_text("import nothing_of_the_kind")
    for name in ("broken:Task", "broken.py:Task"):
        with pytest.raises(TaskNotFoundError, match=r"Importing broken.* raised ModuleNotFoundError.*nothing_of"):
            load_task(name)


def test_a_users_task_is_known_by_its_name_and_its_source(folder: Path) -> None:
    settings = task_settings(load_task("model.py:factory"))
    assert settings["name"] == "model.py:factory"
    assert len(settings["source_sha256"]) == 64
    assert task_settings(task_from_settings(settings)) == settings


def test_a_task_made_in_code_is_known_by_its_class(folder: Path) -> None:
    name = f"{module(folder)}:Mine"
    task = type(load_task(name))()
    assert task_settings(task) == task_settings(load_task(name))


MADE_IN_CODE = """
from dataclasses import dataclass
from {module} import Mine

@dataclass(frozen=True)
class Fields(Mine):
    sizes: tuple[int, ...] = (1, 2)

class Attributes(Mine):
    def __init__(self, beta):
        self.beta, self._cache = beta, object()
"""


@pytest.mark.parametrize(("kind", "arguments"), [("Fields", {"sizes": (3, 4)}), ("Attributes", {"beta": 0.5})])
def test_the_values_of_a_task_made_in_code_are_part_of_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, arguments: dict[str, object]
) -> None:
    name = f"made_{module(folder)}"
    (folder / f"{name}.py").write_text(MADE_IN_CODE.format(module=module(folder)))
    monkeypatch.syspath_prepend(str(folder))
    task = getattr(importlib.import_module(name), kind)(**arguments)
    settings = json.loads(json.dumps(task_settings(task)))
    again = task_from_settings(settings)
    assert [vars(again)[key] for key in arguments] == list(arguments.values())
    assert task_settings(again) == settings != task_settings(load_task(f"{module(folder)}:Mine"))


def test_a_task_changed_on_disk_is_refused(folder: Path) -> None:
    settings = task_settings(load_task("model.py:Mine"))
    with (folder / "model.py").open("a") as file:
        file.write("# another loss, perhaps\n")
    with pytest.raises(StoreMismatchError, match=r"'model.py:Mine' has changed on disk.*Restore the file"):
        task_from_settings(settings)


def test_a_users_task_takes_no_settings_from_outside(folder: Path) -> None:
    with pytest.raises(TaskError, match="d_latent cannot be set from outside"):
        make_task("model.py:Mine", None, (4,), d_latent=3)  # type: ignore[arg-type]
