"""Training: the same bytes from the same seed, after any interruption, and clear words when it goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gradstore.data import load_batch, scan
from gradstore.errors import LossShapeError, MissingLabelsError, StoreMismatchError, TaskError
from gradstore.models import (
    VAE,
    Checkpoint,
    Classifier,
    InputScaling,
    TrainingProgress,
    TrainingSettings,
    load_checkpoint,
    train,
    training,
)
from gradstore.task import Batch, Noise, Task
from gradstore.testing.memory_source import MemorySource

RNG = np.random.default_rng(0)
IMAGES = MemorySource(RNG.integers(0, 256, (40, 1, 6, 6), dtype=np.uint8))
SETTINGS = TrainingSettings(epochs=3, batch_size=16, n_checkpoints=3)
VAE_TASK = VAE(example_shape=(1, 6, 6), d_latent=2, width=16)
Progress = Callable[[TrainingProgress], None]


class Regression(Task):
    """Scaling, dropout and BatchNorm: everything with a state or a generator of its own."""

    def build(self) -> nn.Module:
        return nn.Sequential(InputScaling((3,)), nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        output: Tensor = model(batch.inputs)
        return output.square().sum(1)

    def latent(self, model: nn.Module, batch: Batch) -> Tensor:
        return batch.inputs


def run(
    folder: Path,
    task: Task = VAE_TASK,
    settings: TrainingSettings = SETTINGS,
    source: MemorySource = IMAGES,
    progress: Progress | None = None,
) -> list[Checkpoint]:
    return train(task, source, scan(source), folder, settings=settings, progress=progress)


def hashes(checkpoints: list[Checkpoint]) -> list[str | None]:
    return [checkpoint.sha256 for checkpoint in checkpoints]


class KilledError(Exception):
    pass


def kill_at(step: int) -> Progress:
    def progress(told: TrainingProgress) -> None:
        if told.step == step:
            raise KilledError

    return progress


def test_checkpoints_record_the_learning_rate_and_differ(tmp_path: Path) -> None:
    found = run(tmp_path)
    assert [checkpoint.path.name for checkpoint in found] == [f"checkpoint-000000{n}.safetensors" for n in (1, 4, 9)]
    assert {checkpoint.learning_rate for checkpoint in found} == {1e-3}
    assert len(set(hashes(found))) == 3


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    torch.rand(3)  # the caller's generator has no say
    first, second = run(tmp_path / "a"), run(tmp_path / "b")
    other = run(tmp_path / "c", settings=replace(SETTINGS, seed=1))
    assert hashes(first) == hashes(second)
    assert not set(hashes(first)) & set(hashes(other))


TABLE = MemorySource(RNG.normal(50, 9, (40, 3)).astype(np.float32))


@pytest.mark.parametrize("state_every_s", [0.0, 1e9])
@pytest.mark.parametrize("killed_at", [1, 4, 6, 9])
@pytest.mark.parametrize(("task", "source"), [(VAE_TASK, IMAGES), (Regression(), TABLE)], ids=["vae", "dropout"])
def test_resuming_after_a_kill_gives_the_same_bytes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: Task,
    source: MemorySource,
    killed_at: int,
    state_every_s: float,
) -> None:
    monkeypatch.setattr(training, "_STATE_EVERY_S", state_every_s)
    whole = run(tmp_path / "whole", task, source=source)
    with pytest.raises(KilledError):
        run(tmp_path / "killed", task, source=source, progress=kill_at(killed_at))
    assert hashes(run(tmp_path / "killed", task, source=source)) == hashes(whole)


def test_a_resumed_training_repeats_nothing_that_was_saved(tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        run(tmp_path, progress=kill_at(4))
    told: list[int] = []
    run(tmp_path, progress=lambda progress: told.append(progress.step))
    assert told == [5, 6, 7, 8, 9]


def test_a_finished_training_is_returned_as_it_is(tmp_path: Path) -> None:
    first = run(tmp_path)
    assert run(tmp_path, progress=kill_at(1)) == first
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", *[".safetensors"] * 3]


def test_sgd_resumes_as_well(tmp_path: Path) -> None:
    settings = replace(SETTINGS, optimizer="sgd", learning_rate=1e-4)
    whole = run(tmp_path / "whole", settings=settings)
    with pytest.raises(KilledError):
        run(tmp_path / "killed", settings=settings, progress=kill_at(5))
    assert hashes(run(tmp_path / "killed", settings=settings)) == hashes(whole)


def test_a_folder_with_another_training_is_refused_showing_both(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(StoreMismatchError, match=r"batch_size: 16 there, 8 asked for"):
        run(tmp_path, settings=replace(SETTINGS, batch_size=8))
    with pytest.raises(StoreMismatchError, match="data: "):
        run(tmp_path, source=MemorySource(IMAGES.examples[::-1].copy()))
    with pytest.raises(StoreMismatchError, match=r"task: .*'d_latent': 2.*'d_latent': 3"):
        run(tmp_path, task=replace(VAE_TASK, d_latent=3))


def test_the_callers_threads_and_generator_come_back(tmp_path: Path) -> None:
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    inside: list[int] = []
    settings = replace(SETTINGS, threads=threads + 1)
    run(tmp_path, settings=settings, progress=lambda _: inside.append(torch.get_num_threads()))
    assert set(inside) == {threads + 1}
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_summary_kept_as_json_trains_the_same(tmp_path: Path) -> None:
    summary = scan(TABLE)
    kept = type(summary).from_json(summary.to_json())
    first = train(Regression(), TABLE, summary, tmp_path / "a", settings=SETTINGS)
    assert hashes(train(Regression(), TABLE, kept, tmp_path / "b", settings=SETTINGS)) == hashes(first)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    task = Classifier(example_shape=(3,), n_classes=2, width=16)
    labels = RNG.integers(0, 2, 200)
    source = MemorySource((RNG.normal(0, 1, (200, 3)) + 100 + 2 * labels[:, None]).astype(np.float32), labels)
    [end] = run(tmp_path, task, TrainingSettings(epochs=20, n_checkpoints=1, learning_rate=1e-2), source)
    model = task.build().eval()
    load_checkpoint(model, end)
    batch = load_batch(source, slice(None))
    assert float(task.loss(model, batch, Noise(batch.keys, 0)).mean().detach()) < 0.3  # log 2 = .69 is chance


def test_progress_is_told_of_every_step(tmp_path: Path) -> None:
    told: list[TrainingProgress] = []
    run(tmp_path, progress=told.append)
    assert [progress.step for progress in told] == list(range(1, 10))
    assert told[-1] == TrainingProgress(9, 9, 3, 3, told[-1].loss)


def test_only_the_rows_of_a_batch_are_ever_read(tmp_path: Path) -> None:
    asked: list[int] = []

    class Counting(MemorySource):
        def rows(self, index: object) -> np.ndarray:
            rows = super().rows(index)  # type: ignore[arg-type]
            asked.append(len(rows))
            return rows

    train(VAE_TASK, Counting(IMAGES.examples), scan(IMAGES), tmp_path, settings=SETTINGS)
    assert max(asked) <= SETTINGS.batch_size


class Mean(Regression):
    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        return super().loss(model, batch, noise).mean()


class Logarithm(Regression):
    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        return super().loss(model, batch, noise) + torch.log(batch.inputs[:, 0] - batch.inputs[:, 0].mean())


def test_a_loss_that_returns_a_mean_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LossShapeError, match=r"Mean.loss returned a mean.*\[\] for 13 examples.*reduction='none'"):
        run(tmp_path, Mean(), source=TABLE)


def test_a_training_that_saved_nothing_may_be_corrected(tmp_path: Path) -> None:
    with pytest.raises(LossShapeError):
        run(tmp_path, Mean(), source=TABLE)
    assert len(run(tmp_path, Regression(), source=TABLE)) == 3


def test_a_diverging_training_says_to_lower_the_learning_rate(tmp_path: Path) -> None:
    settings = replace(SETTINGS, optimizer="sgd", learning_rate=1e6)
    with pytest.raises(TaskError, match=r"loss of example '\d+' is (nan|inf).*lower --learning-rate"):
        run(tmp_path, settings=settings)


def test_a_loss_wrong_from_the_start_does_not_blame_the_learning_rate(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="no learning rate is to blame"):
        run(tmp_path, Logarithm(), source=TABLE)


def test_a_classifier_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingLabelsError):
        run(tmp_path, Classifier(example_shape=(3,), n_classes=2), source=TABLE)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"learning_rate": 0.0}, {"optimizer": "lion"}, {"threads": -1}])
def test_settings_that_train_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(TaskError, match=str(next(iter(wrong.values())))):
        TrainingSettings(**wrong)  # type: ignore[arg-type]
