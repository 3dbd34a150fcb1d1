"""Options out of a settings dataclass: field, type, default and the string under it become option, type, default
and help, so that a setting is said once.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import typer

Settings = TypeVar("Settings")
Command = TypeVar("Command", bound=Callable[..., Any])


def options_from(settings: type[Any], *, argument: str) -> Callable[[Command], Command]:
    """Give a command that takes `**values` one option a field of `settings`, before its own.

    Args:
        argument: the field that is positional.
    """

    def decorate(command: Command) -> Command:
        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
        signature = inspect.Signature([*_parameters(settings, argument), *own])
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


def _parameters(settings: type[Any], argument: str) -> list[inspect.Parameter]:
    hints, documentation = get_type_hints(settings), field_documentation(settings)
    return [
        _parameter(field, hints[field.name], documentation[field.name], positional=field.name == argument)
        for field in fields(settings)
    ]


def _parameter(field: Field[Any], hint: Any, help: str, *, positional: bool) -> inspect.Parameter:
    default: Any = inspect.Parameter.empty if field.default is MISSING else field.default
    if get_origin(hint) is tuple:
        hint, default, help = list[get_args(hint)[0]], list(default), f"{help} Repeatable."  # type: ignore[misc]
    flag = [f"--{field.name.replace('_', '-')}"] if hint is bool else []  # and no --no-…
    option = typer.Argument(metavar=field.name.upper(), help=help) if positional else typer.Option(*flag, help=help)
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(field.name, kind, default=default, annotation=Annotated[hint, option])
