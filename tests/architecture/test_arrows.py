"""Imports run one way: cli -> pipelines -> gradstore; and importing gradstore stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "gradstore": ROOT / "gradstore",
    "gradstore_pipelines": ROOT / "pipelines" / "gradstore_pipelines",
    "gradstore_cli": ROOT / "cli" / "gradstore_cli",
}
ABOVE = {
    "gradstore": {"gradstore_pipelines", "gradstore_cli"},
    "gradstore_pipelines": {"gradstore_cli"},
    "gradstore_cli": set[str](),
}
HEAVY = ("faiss", "dask", "distributed", "captum", "transformers", "torch", "zarr")


def imported_packages(file: Path) -> set[str]:
    """First names of everything a module imports, wherever in the module."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_points_upwards(package: str) -> None:
    files = sorted(PACKAGES[package].rglob("*.py"))
    assert files
    upwards = {str(file): found for file in files if (found := imported_packages(file) & ABOVE[package])}
    assert not upwards


@pytest.mark.parametrize("statement", ["import gradstore", "import gradstore_cli.main"])
def test_importing_loads_nothing_heavy(statement: str) -> None:
    script = f"import sys; {statement}; print([m for m in {HEAVY} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_help_answers_without_the_heavy_libraries() -> None:
    """Quickness itself is measured in benchmarks; what makes it slow is what is tested."""
    script = (
        "import sys, typer.testing, gradstore_cli.main as m\n"
        "result = typer.testing.CliRunner().invoke(m.app, ['--help'])\n"
        f"assert result.exit_code == 0 and 'rank-outliers' in result.output, result.output\n"
        f"print([name for name in {(*HEAVY, 'numpy', 'pyarrow', 'sklearn', 'scipy')} if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
