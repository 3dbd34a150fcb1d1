from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from typer.testing import CliRunner

from gradstore_cli.settings_options import field_documentation, options_from, settings_from


@dataclass(frozen=True, kw_only=True)
class Bread:
    """Settings of a baker."""

    flour: Path
    """What it is made of."""
    grams: int = 500
    """How heavy;
    in grams."""
    seeds: tuple[str, ...] = ()
    """What is on it."""
    oven: str | None = None
    """Which one."""
    sliced: bool = False
    """Whether it comes in slices."""


def _baked(*words: str) -> Any:
    app, found = typer.Typer(), []

    @app.command()
    @options_from(Bread, argument="flour")
    def bake(*, loud: bool = False, **values: Any) -> None:
        found.append((settings_from(Bread, values), loud))

    ran = CliRunner().invoke(app, list(words))
    assert ran.exit_code == 0, ran.output
    return found[0]


def test_documentation_is_the_string_under_the_field() -> None:
    assert field_documentation(Bread) == {
        "flour": "What it is made of.",
        "grams": "How heavy; in grams.",
        "seeds": "What is on it.",
        "oven": "Which one.",
        "sliced": "Whether it comes in slices.",
    }


def test_defaults_are_the_settings_own() -> None:
    assert _baked("rye") == (Bread(flour=Path("rye")), False)


def test_values_arrive_with_the_types_of_the_fields() -> None:
    words = ["rye", "--sliced", "--grams", "750", "--seeds", "poppy", "--seeds", "sesame", "--oven", "left", "--loud"]
    expected = Bread(flour=Path("rye"), grams=750, seeds=("poppy", "sesame"), oven="left", sliced=True)
    assert _baked(*words) == (expected, True)


def test_a_flag_has_no_opposite() -> None:
    app = typer.Typer()

    @app.command()
    @options_from(Bread, argument="flour")
    def bake(**values: Any) -> None:
        raise AssertionError(values)

    assert CliRunner().invoke(app, ["rye", "--no-sliced"]).exit_code == 2
