"""What differs between the settings that a store has and those that a run asks for, said so that both are seen."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_ABSENT = object()
_LONGEST_VALUE = 120


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """One line a value that differs between what a store has (`a`) and what a run asks for (`b`).

    >>> differences({"seed": 0, "projection": {"d": 512}}, {"seed": 0, "projection": {"d": 1024}})
    ['projection.d: store has 512; this run asks for 1024']
    """
    return [f"{d.name}: store has {d.a}; this run asks for {d.b}" for d in differing(a, b)]


@dataclass(frozen=True)
class Difference:
    """A setting that is not the same in two documents, with both values as text."""

    name: str
    a: str
    b: str


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Difference]:
    """Every value that differs between two JSON documents, in the order of their names."""
    return [Difference(name, _shown(mine), _shown(theirs)) for name, mine, theirs in _differing("", a, b)]


def _differing(name: str, a: Any, b: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            yield from _differing(f"{name}.{key}".lstrip("."), a.get(key, _ABSENT), b.get(key, _ABSENT))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for position, (mine, theirs) in enumerate(zip(a, b, strict=True)):
            yield from _differing(f"{name}.{position}", mine, theirs)
    elif a != b:
        yield name, a, b


def _shown(value: Any) -> str:
    if value is _ABSENT:
        return "no such setting"
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= _LONGEST_VALUE:
        return text
    size = f" ({len(value)} values)" if isinstance(value, list) else ""
    return f"{text[:_LONGEST_VALUE]}…{size}"
