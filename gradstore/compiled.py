"""Functions compiled by numba: where it is installed, and when first called.

Compiled code is kept on disk, one file for every combination of argument types. Why those files get names of our own:
numba numbers them, and two processes that compile for two combinations at the same moment (workers that start on a new
machine) take the same number; from then on one combination runs the code of the other, and gives wrong numbers without
a word (numba 0.60 to 0.68). Named by what they hold, they cannot be taken for one another.
"""

from __future__ import annotations

import functools
import hashlib
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
        _name_files_by_content(made)
    except (RuntimeError, AttributeError, ImportError):  # no folder to keep it in, or a numba that keeps it otherwise
        made = numba.njit(nogil=True, **options)(function)
    return made


def _name_files_by_content(made: Any) -> None:
    numbered = made._cache._cache_file
    made._cache._cache_file = _files_by_content()(
        numbered._cache_path, numbered._index_name.removesuffix(".nbi"), numbered._source_stamp
    )


@functools.cache
def _files_by_content() -> type[Any]:
    from numba.core.caching import IndexDataCacheFile

    files: Any = IndexDataCacheFile

    class FilesByContent(files):  # type: ignore[misc]
        """Numba's files of a function's compiled code, named by the types that they are compiled for."""

        def save(self, key: Any, data: Any) -> None:
            name = f"{self._index_name.removesuffix('.nbi')}.{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.nbc"
            self._save_data(name, data)  # before the index, which another process may read at any time
            self._save_index({**self._load_index(), key: name})

    return FilesByContent
