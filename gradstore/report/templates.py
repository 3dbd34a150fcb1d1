"""The templates, and the rules they all obey: everything is escaped, a missing name is an error."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template


def template(name: str) -> Template:
    """A template of this package, such as `ranking.html.j2`."""
    return _environment().get_template(name)


@cache
def _environment() -> Environment:
    return Environment(
        loader=FunctionLoader(lambda name: files(__package__).joinpath(name).read_text(encoding="utf-8")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_encodable,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _encodable(value: Any) -> Any:
    """File names may hold bytes that are no UTF-8 (lone surrogates): shown as `?`, or the page could not be written."""
    if type(value) is str:
        return value.encode("utf-8", "replace").decode("utf-8")
    return value
