"""Train a task's model and record checkpoints on the way.

Same settings, same data, same bytes, whatever happens in between: every random number is a function of (seed,
epoch, example) or (seed, step), the number of threads is a setting (another number sums in another order), and a
killed training goes on from its last saved state to the very checkpoints of an uninterrupted one.

A training's folder holds `training.json` (what is trained on what, written first), `training-state` (model,
optimizer and step; removed at the end) and one `checkpoint-STEP.safetensors` a checkpoint.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from gradstore.errors import StoreMismatchError, TaskError
from gradstore.models.checkpoints import Checkpoint, find_checkpoints, save_checkpoint
from gradstore.models.registry import task_settings
from gradstore.models.schedule import Schedule
from gradstore.models.trainer import Trainer
from gradstore.store.files import make_folder, write_atomically
from gradstore.store.sealed import sealed
from gradstore.task import Task

if TYPE_CHECKING:
    from gradstore.data import DataSummary, ExampleSource

# A kill costs at most this much work, and saving the state (three times the model) at most a few percent.
_STATE_EVERY_S = 15.0

_IDENTITY, _STATE = "training.json", "training-state"


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How to train; together with the task and the data it determines every byte of the checkpoints."""

    epochs: int = 30
    "Passes over the data."
    batch_size: int = 128
    "Examples in one step."
    learning_rate: float = 1e-3
    "Constant through the training; recorded in each checkpoint."
    n_checkpoints: int = 5
    "Checkpoints, denser early on (see `Schedule.checkpoint_steps`); the last is the end."
    optimizer: Literal["adam", "sgd"] = "adam"
    "adam, or sgd without momentum."
    seed: int = 0
    "Of the first weights, the order of the examples and the noise."
    threads: int = 1
    "CPU threads; another number gives other bits."
    device: str = "cpu"
    "cpu, cuda, cuda:1, …"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "n_checkpoints", "threads"):
            if getattr(self, name) < 1:
                raise TaskError(f"{name}={getattr(self, name)} trains nothing. Use {name}=1 or more.")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise TaskError(f"learning_rate={self.learning_rate} trains nothing. Use a number above 0, such as 0.001.")
        if self.optimizer not in ("adam", "sgd"):
            raise TaskError(f"There is no optimizer {self.optimizer!r}. Expected adam or sgd.")


@dataclass(frozen=True)
class TrainingProgress:
    """Told after every step; the loss is the batch's mean."""

    step: int
    n_steps: int
    epoch: int
    n_epochs: int
    loss: float


def train(
    task: Task,
    source: ExampleSource,
    summary: DataSummary,
    folder: Path,
    *,
    settings: TrainingSettings | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> list[Checkpoint]:
    """Train, or finish a training that was interrupted; a finished one is returned as it is.

    Args:
        task: what to train. Every `InputScaling` in its model is fitted to `summary`.
        source: the examples; read batch by batch.
        summary: of the same source.
        folder: where the checkpoints go; made if missing.
        settings: defaults suit images of some thousand examples.
        progress: called after every step.

    Raises:
        LossShapeError: the loss is not one number an example.
        TaskError: the loss is not finite, or settings that make no training.
        StoreMismatchError: the folder holds a training of another task, other data or other settings.
        StoreWriteError: no space or no permission.
    """
    settings = settings or TrainingSettings()
    schedule = Schedule(
        n_examples=len(source),
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        n_checkpoints=settings.n_checkpoints,
        seed=settings.seed,
    )
    make_folder(folder)
    _claim(folder, {"task": task_settings(task), "data": summary.content_hash, **asdict(settings)})
    paths = {step: folder / f"checkpoint-{step:07d}.safetensors" for step in schedule.checkpoint_steps}
    if not all(path.is_file() for path in paths.values()):
        with reproducible(settings):
            trainer = Trainer(task, source, summary, settings)
            _run(trainer, schedule, source, paths, folder / _STATE, progress)
    (folder / _STATE).unlink(missing_ok=True)
    return find_checkpoints(list(paths.values()))


def _run(
    trainer: Trainer,
    schedule: Schedule,
    source: ExampleSource,
    paths: Mapping[int, Path],
    state: Path,
    progress: Callable[[TrainingProgress], None] | None,
) -> None:
    if state.is_file():
        trainer.restore(state)
    saved_at = time.monotonic()
    for step in schedule.steps(trainer.steps_done):
        loss = trainer.learn(source, step)
        if step.number in paths:
            save_checkpoint(
                paths[step.number],
                trainer.model,
                learning_rate=trainer.learning_rate,
                step=step.number,
                epoch=step.epoch,
            )
        if step.number in paths or time.monotonic() - saved_at > _STATE_EVERY_S:
            write_atomically(state, trainer.state())
            saved_at = time.monotonic()
        if progress is not None:
            progress(TrainingProgress(step.number, schedule.n_steps, step.epoch, schedule.epochs, loss))


def _claim(folder: Path, identity: dict[str, Any]) -> None:
    """Write down what is trained here, or make sure that it is the same as before.

    A training that failed before anything was saved (a loss of the wrong shape, say) claims nothing: the user
    corrects the task and runs the same command.
    """
    file, wanted = folder / _IDENTITY, json.loads(json.dumps(identity))
    if not file.is_file() or not _has_progress(folder):
        write_atomically(file, sealed(wanted).encode())
        return
    found = json.loads(file.read_bytes())
    differing = [key for key in sorted(({*found} - {"sha256"}) | {*wanted}) if found.get(key) != wanted.get(key)]
    if differing:
        pairs = "; ".join(f"{key}: {found.get(key)} there, {wanted.get(key)} asked for" for key in differing)
        raise StoreMismatchError(
            f"{folder} holds a training with other settings ({pairs}). "
            "Use another folder, ask for the same settings, or delete it."
        )


def _has_progress(folder: Path) -> bool:
    return (folder / _STATE).is_file() or any(folder.glob("checkpoint-*.safetensors"))


@contextmanager
def reproducible(settings: TrainingSettings) -> Iterator[None]:
    """The caller's random state and number of threads come back afterwards."""
    threads, device = torch.get_num_threads(), torch.device(settings.device)
    devices = [device] if device.type == "cuda" else []
    cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)
    with torch.random.fork_rng(devices), cudnn if devices else nullcontext():
        try:
            torch.set_num_threads(settings.threads)
            yield
        finally:
            torch.set_num_threads(threads)
