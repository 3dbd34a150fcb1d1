"""Recipes as files: a path, or the name of one that comes with gradstore; and changes to their values.

Paths inside a recipe start where the command is run, as those of every other command: so the recipes that come with
gradstore, which lie with its code, can be run as they are.
"""

from __future__ import annotations

import copy
import difflib
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from gradstore_pipelines.typed_values import RecipeError

_SUFFIX = ".toml"


def recipe_names() -> list[str]:
    """The recipes that come with gradstore."""
    inside = files("gradstore_pipelines") / "recipes"
    return sorted(file.name.removesuffix(_SUFFIX) for file in inside.iterdir() if file.name.endswith(_SUFFIX))


def recipe_text(name: str) -> str:
    """The text of a recipe: of the file `name`, or of the one of that name that comes with gradstore.

    Raises:
        RecipeError: there is neither, or it cannot be read.
    """
    if not Path(name).is_file() and name in recipe_names():
        return (files("gradstore_pipelines") / "recipes" / f"{name}{_SUFFIX}").read_text(encoding="utf-8")
    try:
        return Path(name).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"There is no recipe '{name}'. {_advice(name)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"The recipe '{name}' cannot be read ({error}). Give a text file in TOML.") from error


def recipe_document(name: str, changes: Iterable[str] = ()) -> dict[str, Any]:
    """A recipe's values, with `changes` made to them, such as `build.workers=4`.

    Raises:
        RecipeError: no such recipe, no TOML, or a change that names nothing.
    """
    try:
        document = tomllib.loads(recipe_text(name))
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"The recipe '{name}' is no TOML: {error}. Correct it there.") from error
    for change in changes:
        document = changed(document, change)
    return document


def changed(document: Mapping[str, Any], change: str) -> dict[str, Any]:
    """A recipe's values with one of them set.

    The value is read as TOML, and where it is none, as text. What a recipe has several of, such as two `[[rank]]`, is
    changed in each, or in one by its number from 0.

    >>> changed({"build": {"workers": 0}}, "build.workers=4")
    {'build': {'workers': 4}}
    >>> changed({"rank": [{"top": 5}, {"top": 5}]}, "rank.1.top=9")
    {'rank': [{'top': 5}, {'top': 9}]}

    Raises:
        RecipeError: not NAME=VALUE, or a name that leads nowhere.
    """
    name, equals, text = change.partition("=")
    if not equals or not all(name.split(".")):
        raise RecipeError(f"--set {change!r} sets nothing. Write it like --set build.workers=4 or --set source=photos.")
    whole: dict[str, Any] = copy.deepcopy(dict(document))
    *parents, last = name.split(".")
    for table in _tables(whole, parents, change):
        table[last] = _value(text)
    return whole


def _tables(table: dict[str, Any], parents: list[str], change: str) -> list[dict[str, Any]]:
    """The tables that a dotted name leads to, made where there is none."""
    found: list[Any] = [table]
    for name in parents:
        found = [below for entry in found for below in _below(entry, name, change)]
    return [entry for several in found for entry in (several if isinstance(several, list) else [several])]


def _below(entry: Any, name: str, change: str) -> list[Any]:
    if isinstance(entry, dict):
        below = entry.setdefault(name, {})
        if isinstance(below, dict | list):
            return [below]
    elif isinstance(entry, list) and name.isdecimal() and int(name) < len(entry):
        return [entry[int(name)]]
    elif isinstance(entry, list) and not name.isdecimal():
        return [below for one in entry for below in _below(one, name, change)]
    raise RecipeError(f"--set {change!r}: there is no table {name!r}. Expected one such as build, index or rank.")


def _value(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str | list | dict) else text  # a date is a name here


def _advice(name: str) -> str:
    known = recipe_names()
    close = difflib.get_close_matches(Path(name).name.removesuffix(_SUFFIX), known, n=1)
    guess = f" Did you mean {close[0]}?" if close else ""
    return f"Give a .toml file, or one that comes with gradstore: {', '.join(known)}.{guess}"
