"""Options out of a settings dataclass: field, type, default and the string under it become option, type, default
and help, so that a setting is said once.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

Settings = TypeVar("Settings")
Command = TypeVar("Command", bound=Callable[..., Any])


def options_from(settings: type[Any], *, argument: str | tuple[str, ...]) -> Callable[[Command], Command]:
    """Give a command that takes `**values` one option a field of `settings`, before its own.

    Args:
        argument: the field, or the fields, that are positional.
    """

    def decorate(command: Command) -> Command:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
        positional = (argument,) if isinstance(argument, str) else argument
        signature = inspect.Signature([*_parameters(settings, positional), *own])
        command.__signature__ = signature  # type: ignore[attr-defined]
        return command

    return decorate


def settings_from(settings: type[Settings], values: Mapping[str, Any]) -> Settings:
    """The settings that a command was given; what an option repeats is a tuple again."""
    return settings(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def field_documentation(settings: type[Any]) -> dict[str, str]:
    """The string under each field, on one line."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(settings))).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, below in zip(definition.body, definition.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = " ".join(text.split())
    return found


def _parameters(settings: type[Any], arguments: tuple[str, ...]) -> list[inspect.Parameter]:
    hints, documentation = get_type_hints(settings), field_documentation(settings)
    return [
        _parameter(field, hints[field.name], documentation[field.name], positional=field.name in arguments)
        for field in fields(settings)
    ]


def _parameter(field: Field[Any], hint: Any, help: str, *, positional: bool) -> inspect.Parameter:
    hint = _typed(hint)
    default: Any = inspect.Parameter.empty if field.default is MISSING else field.default
    if get_origin(hint) is tuple:
        hint, default, help = list[get_args(hint)[0]], list(default), f"{help} Repeatable."  # type: ignore[misc]
    flag = [f"--{field.name.replace('_', '-')}"] if hint is bool else []  # and no --no-…
    option = typer.Argument(metavar=field.name.upper(), help=help) if positional else typer.Option(*flag, help=help)
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(field.name, kind, default=default, annotation=Annotated[hint, option])


def _typed(hint: Any) -> Any:
    """What is typed: a location as a string, for a path would swallow one of the slashes of s3://."""
    kinds = get_args(hint)
    if not {str, Path} <= set(kinds):
        return hint
    return str | None if type(None) in kinds else str
