from __future__ import annotations

import subprocess
import sys
from dataclasses import fields

import pytest
import typer
from typer.testing import CliRunner

import gradstore
from gradstore_cli.main import app
from gradstore_cli.settings_options import field_documentation
from gradstore_pipelines.settings import BuildSettings

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
HEAVY = {"torch", "numpy", "zarr", "dask", "distributed", "faiss", "pyarrow", "sklearn", "scipy", "PIL"}


def test_all_commands_are_there() -> None:
    assert list(COMMANDS) == [
        *("demo", "build", "run", "submit", "rank-outliers", "proponents", "opponents"),
        *("neighbours", "credibility", "index", "graph", "fidelity", "selftest", "status", "show", "verify"),
        *("forget", "append", "diff"),
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_the_json_option(name: str) -> None:
    shown = CliRunner().invoke(app, [name, "--help"])
    assert shown.exit_code == 0
    assert "Example:" in shown.stdout
    assert f"gradstore {name}" in shown.stdout
    assert "--json" in shown.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_and_option_has_help(name: str) -> None:
    assert [p.name for p in COMMANDS[name].params if not p.help] == []


def test_every_build_setting_is_an_option_with_its_own_words() -> None:
    helps = {p.name: p.help for p in COMMANDS["build"].params}
    for field in fields(BuildSettings):
        assert helps[field.name].startswith(field_documentation(BuildSettings)[field.name])


def test_build_defaults_are_those_of_the_settings() -> None:
    defaults = {p.name: p.default for p in COMMANDS["build"].params}
    for field in fields(BuildSettings):
        if field.name not in ("source", "store"):
            default = defaults[field.name]
            assert (tuple(default) if isinstance(default, list) else default) == field.default


def test_help_loads_nothing_heavy() -> None:
    script = """
import sys
from gradstore_cli.main import app
try:
    app(["--help"])
finally:
    print(*sorted({name.split(".")[0] for name in sys.modules}), file=sys.stderr)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "rank-outliers" in ran.stdout
    assert HEAVY & set(ran.stderr.split()) == set()


def test_version_is_printed() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"gradstore {gradstore.__version__}\n"
