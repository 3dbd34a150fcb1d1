"""Documentation is a test fixture: every `Example:` in a help text is run as it stands, only with small sketches."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from gradstore_cli.main import app
from gradstore_cli.settings_options import settings_from
from gradstore_pipelines.settings import BuildSettings

ROOT = typer.main.get_command(app)


def examples() -> list[str]:
    """Examples of all commands, in the order of the help; the demo has a test of its own."""
    helps = [ROOT.help, *(command.help for command in ROOT.commands.values())]  # type: ignore[attr-defined]
    lines = [line.strip() for text in helps for line in text.split("Example:")[1].splitlines()]
    return [line for line in dict.fromkeys(lines) if line and line != "gradstore demo"]


@pytest.fixture
def small_sketches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leverage over all checkpoints takes seconds for the default size, however few examples there are."""

    def small(settings: type[BuildSettings], values: dict[str, Any]) -> BuildSettings:
        return dataclasses.replace(settings_from(settings, values), sketch_dim=64)

    monkeypatch.setattr("gradstore_cli.build.settings_from", small)


@pytest.mark.usefixtures("small_sketches", "short_trials")
def test_examples_work_one_after_the_other(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("digits.npz", "more.npz", "digit.png"):
        shutil.copy(folder / name, tmp_path)
    shutil.copytree(folder / "photos", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    for line in examples():
        program, *words = shlex.split(line)
        ran = CliRunner().invoke(app, words)
        assert (program, ran.exit_code) == ("gradstore", 0), f"{line}\n{ran.stderr}"
