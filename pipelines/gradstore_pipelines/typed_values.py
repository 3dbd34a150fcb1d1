"""From the values of a TOML table to a settings dataclass: every name known, every value of its field's type.

A recipe is written by hand, and a mistake in it must not show after hours of training. So nothing is guessed: a name
that no field has is refused with the nearest one that has, and a value of another type with what was expected. Two
conveniences only: a path is text, and what may be repeated may be given once.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gradstore_pipelines.settings_error import SettingsError

Settings = TypeVar("Settings")

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
}


class RecipeError(SettingsError):
    """A recipe that cannot be read, or that says what no stage understands."""


def settings_of(kind: type[Settings], values: Mapping[str, Any], where: str) -> Settings:
    """The settings that a table describes.

    Args:
        where: the table, as messages name it, such as `[rank]`.

    Raises:
        RecipeError: an unknown name, a value of another type, or a name that must be there and is not.
        SettingsError: a value out of its range.
    """
    fields, hints = {field.name: field for field in dataclasses.fields(kind)}, get_type_hints(kind)  # type: ignore[arg-type]
    require_known(values, fields, where)
    missing = [name for name, field in fields.items() if name not in values and not _has_default(field)]
    if missing:
        raise RecipeError(f"{where} does not say {missing[0]}. Add it: {missing[0]} = …")
    return kind(**{name: value_of(value, hints[name], f"{where} {name}") for name, value in values.items()})


def require_known(
    given: Iterable[str], known: Iterable[str], where: str, elsewhere: Mapping[str, str] | None = None
) -> None:
    """Refuse names that are not known, with the nearest that are.

    Args:
        elsewhere: names that another table knows, and which.

    Raises:
        RecipeError: names the first that is unknown.
    """
    known = list(known)
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        home = (elsewhere or {}).get(unknown)
        advice = f"It belongs to {home}." if home else _nearest(unknown, known)
        raise RecipeError(f"{where} takes no {unknown!r}. {advice}")


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=2, cutoff=0.5)
    return f"Did you mean {' or '.join(close)}?" if close else f"Expected {', '.join(known)}."


def value_of(value: Any, hint: Any, where: str) -> Any:
    """`value` as a field of type `hint` takes it; RecipeError where it does not."""
    for option in _options(hint):
        if _fits(value, option):
            return _as(value, option)
    expected = " or ".join(dict.fromkeys(_in_words(option) for option in _options(hint)))
    raise RecipeError(f"{where} is {value!r}; expected {expected}.")


def _options(hint: Any) -> Sequence[Any]:
    if get_origin(hint) in (Union, UnionType):
        return [option for option in get_args(hint) if option is not NoneType]  # TOML has no null
    return [hint]


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin is Literal:
        return value in get_args(hint)
    if origin is tuple:
        return all(_fits(entry, get_args(hint)[0]) for entry in _listed(value))
    if origin is not None or hint not in _WORDS:
        return isinstance(value, Mapping)
    if hint is Path:
        return isinstance(value, str)
    return type(value) is hint or (hint is float and type(value) is int)


def _as(value: Any, hint: Any) -> Any:
    if get_origin(hint) is tuple:
        return tuple(_as(entry, get_args(hint)[0]) for entry in _listed(value))
    return hint(value) if hint in (Path, float) else value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _in_words(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) is tuple:
        return f"{_in_words(get_args(hint)[0])}, or a list of such"
    return _WORDS.get(hint, "a table")


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
