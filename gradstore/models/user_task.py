"""Find a user's own Task: `module:object` or `path/to/file.py:object`, with the hash of its source.

Why the working directory goes first on sys.path only while importing: a command is not started with it there, and
a user's `utils.py` must win; left in front it would shadow modules that gradstore imports later. It stays at the
end, so that imports inside the user's functions keep working.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from gradstore.errors import TaskNotFoundError
from gradstore.task import Task


@dataclass(frozen=True)
class Origin:
    """Where a Task came from: the name a user gave, the SHA-256 of its source file, what its class was called with."""

    name: str
    source_sha256: str | None
    arguments: Mapping[str, Any] = field(default_factory=dict)


def load_task(name: str, arguments: Mapping[str, Any] | None = None) -> Task:
    """The Task that a name leads to: an instance, or a Task subclass or factory, called without arguments.

    Args:
        name: `package.module:Object` (the working directory is searched first) or `path/to/file.py:Object`.
        arguments: what the class was called with, for a Task that was made in code (see `origin_of`).

    Raises:
        TaskNotFoundError: no such module, file or object, an object that gives no Task, or code that fails.
    """
    location, _, attribute = name.rpartition(":")
    if not location or not attribute:
        raise TaskNotFoundError(f"{name!r} names no object. Expected module:Object or path/to/file.py:Object.")
    module = _import_file(Path(location)) if location.endswith(".py") else _import_module(location)
    task = _task_of(_attribute(module, attribute, name), name, arguments or {})
    origin = Origin(name, source_sha256(module.__file__), arguments or {})
    # On the instance, so that whoever holds the Task can say what it is; works for frozen dataclasses as well.
    object.__setattr__(task, "_gradstore_origin", origin)
    return task


def origin_of(task: Task) -> Origin:
    """What `load_task` noted; for a Task made in code, its class, that class's source, and its public values.

    The values are what JSON can hold of them: a dataclass's fields, or attributes that carry their argument's name.
    """
    noted: Origin | None = getattr(task, "_gradstore_origin", None)
    if noted is not None:
        return noted
    kind = type(task)
    values = {key: _plain(value) for key, value in vars(task).items() if not key.startswith("_") and _is_plain(value)}
    return Origin(f"{kind.__module__}:{kind.__qualname__}", source_sha256(_source_file(kind)), values)


def _is_plain(value: Any) -> bool:
    parts = value if isinstance(value, tuple | list) else [value]
    return all(part is None or isinstance(part, str | int | float) for part in parts)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def source_sha256(file: str | None) -> str | None:
    """SHA-256 of a source file as it is now; None where code has no file (a notebook, a frozen module)."""
    path = None if file is None else Path(file)
    return hashlib.sha256(path.read_bytes()).hexdigest() if path is not None and path.is_file() else None


def _source_file(kind: type) -> str | None:
    try:
        return inspect.getsourcefile(kind)
    except (TypeError, OSError):
        return None


def _import_module(name: str) -> ModuleType:
    folder = Path.cwd()
    try:
        with _first_on_path(folder):
            importlib.invalidate_caches()
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not _is_part_of(error.name, name):
            raise _failed(name, error) from error
        raise TaskNotFoundError(
            f"There is no module {error.name!r} (searched {folder} and what is installed). "
            "Expected module:Object; run from the folder that holds your code, or name a file: path/to/file.py:Object."
        ) from error
    except Exception as error:
        raise _failed(name, error) from error


def _is_part_of(missing: str | None, name: str) -> bool:
    return missing is not None and (name == missing or name.startswith(f"{missing}."))


def _import_file(path: Path) -> ModuleType:
    """Import a file anew under a name of its own, its folder being where its siblings are found."""
    if not path.is_file():
        raise TaskNotFoundError(f"There is no file {path} (working directory {Path.cwd()}). Check the path.")
    name = f"_gradstore_user_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise TaskNotFoundError(f"{path} cannot be imported. Expected a Python source file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look classes up there
    try:
        with _first_on_path(path.resolve().parent):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise _failed(str(path), error) from error
    return module


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)
        if entry not in sys.path:
            sys.path.append(entry)


def _failed(what: str, error: Exception) -> TaskNotFoundError:
    return TaskNotFoundError(
        f"Importing {what} raised {type(error).__name__}: {error}. Expected code that imports without an error; "
        "try: python -c 'import …' in the same folder."
    )


def _attribute(module: ModuleType, attribute: str, name: str) -> Any:
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [key for key in vars(module) if not key.startswith("_")]
            raise TaskNotFoundError(
                f"{name!r}: the module has no {attribute!r}. It has {', '.join(public[:8]) or 'no public names'}."
            )
        found = getattr(found, part)
    return found


def _task_of(found: Any, name: str, arguments: Mapping[str, Any]) -> Task:
    made = found if isinstance(found, Task) or not callable(found) else _called(found, name, arguments)
    if not isinstance(made, Task):
        how = "is" if made is found else "gave"
        raise TaskNotFoundError(
            f"{name!r} {how} a {type(made).__name__}. Expected a gradstore.Task, a subclass of it, or a function "
            "without arguments that returns one."
        )
    return made


def _called(factory: Any, name: str, arguments: Mapping[str, Any]) -> Any:
    try:
        return factory(**{key: tuple(value) if isinstance(value, list) else value for key, value in arguments.items()})
    except Exception as error:
        what = (
            f"with {', '.join(f'{key}={value!r}' for key, value in arguments.items())}"
            if arguments
            else "without arguments"
        )
        raise TaskNotFoundError(
            f"Calling {name!r} {what} raised {type(error).__name__}: {error}. "
            "Give every argument a default, or name a finished object."
        ) from error
