"""Which rows are to blame when many fail together: blocks are tried, then halves of those that fail."""

from __future__ import annotations

from collections.abc import Callable


def guilty(rows: range, block: int, fails: Callable[[range], bool]) -> list[int]:
    """The rows that fail by themselves; where none of a group does and the group does, the whole group.

    Args:
        block: rows that are evaluated together, from the first row on.
        fails: whether these rows, evaluated together, fail.

    >>> guilty(range(100, 200), 32, lambda part: 117 in part or 198 in part)
    [117, 198]
    """
    blocks = [rows[start : start + block] for start in range(0, len(rows), block)]
    return [row for part in blocks if fails(part) for row in _within(part, fails)]


def _within(failing: range, fails: Callable[[range], bool]) -> list[int]:
    if len(failing) == 1:
        return list(failing)
    half = len(failing) // 2
    parts = [part for part in (failing[:half], failing[half:]) if fails(part)]
    return [row for part in parts for row in _within(part, fails)] or list(failing)
