"""Tasks by name: the ready-made ones, and the user's own; each as JSON that is its identity in a store.

A ready-made task is its name and its fields. A user's task is its name and the hash of its source file (and the
values of one made in code), because the code is the definition: changed code makes other gradients, and a store
must not mix the two.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from gradstore.errors import MissingLabelsError, StoreMismatchError, TaskError, TaskNotFoundError
from gradstore.models.autoencoder import Autoencoder
from gradstore.models.classifier import Classifier
from gradstore.models.likelihood import natural_likelihood
from gradstore.models.user_task import load_task, origin_of
from gradstore.models.vae import VAE
from gradstore.task import Task

if TYPE_CHECKING:
    from gradstore.data import DataSummary

ReadyMade = VAE | Autoencoder | Classifier

READY_MADE: dict[str, type[VAE] | type[Autoencoder] | type[Classifier]] = {
    "vae": VAE,
    "autoencoder": Autoencoder,
    "classifier": Classifier,
}


def make_task(name: str, summary: DataSummary, example_shape: tuple[int, ...], **settings: Any) -> Task:
    """A Task for this data.

    Args:
        name: `vae`, `autoencoder`, `classifier`, or the user's own as `load_task` takes it.
        summary: what `gradstore.data.scan` found: the range chooses the likelihood, the classes size the head.
        example_shape: shape of one example.
        **settings: fields of the ready-made task, over the chosen ones.

    Raises:
        TaskNotFoundError: neither ready-made nor to be imported.
        TaskError: a setting that the task does not have or cannot use.
        MissingLabelsError: a classifier for data without labels.
    """
    if ":" in name:
        return _without_settings(load_task(name), name, settings)
    if name not in READY_MADE:
        raise _unknown(name)
    _require_fields(name, settings)
    chosen = _CHOSEN[name](summary)
    return READY_MADE[name](example_shape=tuple(example_shape), **{**chosen, **settings})


def task_settings(task: Task) -> dict[str, Any]:
    """JSON that identifies the task: two tasks with equal settings have the same losses and latents."""
    for name, kind in READY_MADE.items():
        if type(task) is kind:  # a subclass is the user's own
            return {"name": name, **_as_json(task)}
    origin = origin_of(task)
    arguments = {"arguments": dict(origin.arguments)} if origin.arguments else {}
    return {"name": origin.name, "source_sha256": origin.source_sha256, **arguments}


def task_from_settings(settings: Mapping[str, Any]) -> Task:
    """The task again, in this or another process.

    Raises:
        TaskNotFoundError: a user's task that cannot be imported here.
        StoreMismatchError: a user's task whose source file has changed.
    """
    name = str(settings["name"])
    if name in READY_MADE:
        values = {key: value for key, value in settings.items() if key != "name"}
        return READY_MADE[name](**{**values, "example_shape": tuple(values["example_shape"])})
    if ":" not in name:
        raise _unknown(name)
    task = load_task(name, settings.get("arguments"))
    _require_unchanged(name, task_settings(task)["source_sha256"], settings.get("source_sha256"))
    return task


def _from_range(summary: DataSummary) -> dict[str, Any]:
    return {"likelihood": natural_likelihood(summary)}


def _from_labels(summary: DataSummary) -> dict[str, Any]:
    if summary.n_classes is None:
        raise MissingLabelsError(
            "A classifier needs labels and this data has none. "
            "Pass --labels FILE, put each class in a folder of its own, or use --model vae, which needs none."
        )
    return {"n_classes": summary.n_classes}


_CHOSEN: dict[str, Callable[[DataSummary], dict[str, Any]]] = {
    "vae": _from_range,
    "autoencoder": _from_range,
    "classifier": _from_labels,
}


def _as_json(task: ReadyMade) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(task).items()}


def _without_settings(task: Task, name: str, settings: Mapping[str, Any]) -> Task:
    if settings:
        raise TaskError(
            f"{', '.join(settings)} cannot be set from outside for your own task {name!r}. "
            "Set it in your code, and leave the option out."
        )
    return task


def _require_fields(name: str, settings: Mapping[str, Any]) -> None:
    known = [field.name for field in fields(READY_MADE[name]) if field.name != "example_shape"]
    unknown = [key for key in settings if key not in known]
    if unknown:
        raise TaskError(f"{name} has no setting {', '.join(unknown)}. It has {', '.join(known)}.")


def _unknown(name: str) -> TaskNotFoundError:
    close = difflib.get_close_matches(name, READY_MADE, n=1)
    guess = f" Did you mean {close[0]}?" if close else ""
    return TaskNotFoundError(
        f"There is no ready-made task {name!r}. Expected one of {', '.join(READY_MADE)}, or your own as "
        f"module:Object or path/to/file.py:Object.{guess}"
    )


def _require_unchanged(name: str, found: str | None, expected: str | None) -> None:
    if found != expected:
        raise StoreMismatchError(
            f"The source file of {name!r} has changed on disk: its SHA-256 is {str(found)[:12]}, expected "
            f"{str(expected)[:12]}. Restore the file that the store was made with, or build a new store."
        )
