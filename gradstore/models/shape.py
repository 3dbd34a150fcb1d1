"""Checks that the ready-made tasks share."""

from __future__ import annotations

from gradstore.errors import TaskError


def check_sizes(example_shape: tuple[int, ...], **sizes: int) -> None:
    """Refuse a shape or size below 1.

    Raises:
        TaskError: naming the field, its value and what would do.
    """
    if not example_shape or min(example_shape) < 1:
        raise TaskError(f"example_shape={example_shape} has no values. An example needs at least one axis of size 1.")
    for name, size in sizes.items():
        if size < 1:
            raise TaskError(f"{name}={size} is too small. Use {name}=1 or more.")
