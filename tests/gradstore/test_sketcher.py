"""Sketching block by block: what is on a device, what comes back, and what happens when memory runs out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from gradstore.errors import DeviceError
from gradstore.gradients import Coverage, GradientEngine, Gradients
from gradstore.models.checkpoints import find_checkpoints, save_checkpoint
from gradstore.sketcher import Sketcher, SketchPlan
from gradstore.task import Batch
from gradstore.testing.toys import ReadoutTask, batch_of

BLOCK = 16


@pytest.fixture
def sketcher(tmp_path: Path) -> Sketcher:
    task = ReadoutTask(lambda: nn.Linear(5, 3))
    save_checkpoint(tmp_path / "c.safetensors", task.build(), learning_rate=0.1, step=1, epoch=1)
    plan = SketchPlan(
        task={},
        checkpoints=tuple(find_checkpoints([tmp_path / "c.safetensors"])),
        parameters=("all",),
        d_sketch=32,
        seed=0,
        n_draws=1,
        block=BLOCK,
        coverage=Coverage(()),
    )
    made = Sketcher(plan, tmp_path, task=task)
    made.planned(examples(4))
    return made


def examples(count: int) -> Batch:
    return batch_of(torch.randn(count, 5, generator=torch.Generator().manual_seed(0)))


class _Small:
    """An engine whose memory holds so many rows; counts what it is asked."""

    def __init__(self, engine: GradientEngine, at_most: int) -> None:
        self.run_whole, self.at_most = engine.run, at_most
        self.asked: list[int] = []

    def __call__(self, batch: Batch) -> Gradients:
        self.asked.append(len(batch))
        if len(batch) > self.at_most:
            raise torch.OutOfMemoryError("out of memory")
        return self.run_whole(batch)


def test_a_full_memory_halves_the_rows_and_goes_on(sketcher: Sketcher, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sketcher.gradients(0, examples(20)).sets["all"]
    small = _Small(sketcher.engine, at_most=5)
    monkeypatch.setattr(sketcher.engine, "run", small)
    found = sketcher.gradients(0, examples(20)).sets["all"]
    torch.testing.assert_close(found.sketches, expected.sketches)
    torch.testing.assert_close(found.sq_norms, expected.sq_norms)
    assert small.asked == [16, 8, 4, 4, 4, 4, 4, 4, 4, 4]  # and the second block starts with what fitted


def test_one_row_that_does_not_fit_is_an_error(sketcher: Sketcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketcher.engine, "run", _Small(sketcher.engine, at_most=0))
    with pytest.raises(DeviceError, match="single example"):
        sketcher.gradients(0, examples(3))


def test_blocks_do_not_depend_on_how_the_rows_are_handed_over(sketcher: Sketcher) -> None:
    batch = examples(3 * BLOCK + 5)
    pieces = [batch[: 2 * BLOCK], batch[2 * BLOCK :]]
    whole = [g.sets["all"].sketches for g in sketcher.blocks(0, [batch])]
    parts = [g.sets["all"].sketches for g in sketcher.blocks(0, pieces)]
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert [len(sketches) for sketches in whole] == [BLOCK, BLOCK, BLOCK, 5]
