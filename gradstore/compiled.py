"""Functions compiled by numba: where it is installed, and when first called."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])


@functools.cache
def has_numba() -> bool:
    """Is numba installed?"""
    return importlib.util.find_spec("numba") is not None


def compiled(function: _F, **options: Any) -> _F:
    """Compiled once a machine where the folder of the package or of the user can keep it, else once a process.

    Args:
        options: numba's, such as `fastmath`.
    """
    import numba

    try:
        made: _F = numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # numba found no folder to keep it in
        made = numba.njit(nogil=True, **options)(function)
    return made
