"""The rehearsal: run a task's own code once, plainly, so that what fails there is known to be the task's.

The engine runs the same code under hooks and transforms, where its errors are hard to read and may be the engine's
own. Called before anything long is started, and again when the engine fails on a batch: an error that the task
raises by itself becomes a TaskError that says where, with the original as its cause; any other is left as it is.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from gradstore.errors import GradstoreError, TaskError
from gradstore.task import Batch, Noise, Predicting, Task


def rehearse(task: Task, model: nn.Module, batch: Batch, seed: int = 0) -> None:
    """Compute losses and latents of a batch once, and predictions where the task has them.

    Raises:
        TaskError: the task's `loss`, `latent` or `predict` raises, or predictions are not one row an example; the
            original error is its cause.
    """
    with torch.no_grad():
        with blaming(task, "loss"):
            task.loss(model, batch, Noise(batch.keys, seed))
        with blaming(task, "latent"):
            task.latent(model, batch)
        if isinstance(task, Predicting):
            with blaming(task, "predict"):
                _require_logits(task, task.predict(model, batch), len(batch))


def _require_logits(task: Task, logits: object, n_examples: int) -> None:
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != n_examples:
        raise TaskError(
            f"{type(task).__name__}.predict returned {shape} for {n_examples} examples; expected ({n_examples}, "
            "n_classes), one logit a class. Return logits alone, or rename the method if it means something else."
        )


def saved_bytes(task: Task, model: nn.Module, batch: Batch, seed: int = 0) -> int:
    """Bytes that the loss of one example keeps for its backward pass, beside the model's own tensors."""
    own = {tensor.data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in own:
            found[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = task.loss(model, batch, Noise(batch.keys, seed))  # held while pointers are compared
        total = sum(found.values())
        del losses
    return -(-total // len(batch))


def build_model(task: Task) -> nn.Module:
    """A new model in eval mode, whose random weights leave torch's generator as it was.

    Raises:
        TaskError: the task's `build` raises.
    """
    with torch.random.fork_rng(devices=[]), blaming(task, "build"):
        return task.build().eval()


@contextmanager
def blaming(task: Task, method: str) -> Iterator[None]:
    """Turn whatever a method of the task raises into a TaskError; gradstore's own errors and a full GPU pass."""
    try:
        yield
    except (GradstoreError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        message = (str(error).splitlines() or ["no message"])[0]
        raise TaskError(
            f"{type(task).__name__}.{method} raised {type(error).__name__}: {message}{_where(task, error)}. "
            "Correct the task, then run the same command."
        ) from error


def _where(task: Task, error: Exception) -> str:
    """The innermost line of the task's own file."""
    file = getattr(sys.modules.get(type(task).__module__), "__file__", None)
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({Path(str(file)).name}, line {lines[-1]})" if lines else ""
