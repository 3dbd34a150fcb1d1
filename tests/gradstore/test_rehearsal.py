"""What a user's own code raises is told as theirs: which method, which line, and the original error as the cause."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gradstore.errors import LossShapeError, TaskError
from gradstore.rehearsal import build_model, rehearse
from gradstore.task import Batch, Noise
from gradstore.testing.toys import ReadoutTask, batch_of


class Failing(ReadoutTask):
    """Raises in one of its methods."""

    def __init__(self, method: str, error: Callable[[], Exception]) -> None:
        super().__init__(lambda: nn.Linear(3, 2))
        self._method, self._error = method, error

    def build(self) -> nn.Module:
        self._raise_in("build")
        return super().build()

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        self._raise_in("loss")
        return super().loss(model, batch, noise)

    def latent(self, model: nn.Module, batch: Batch) -> Tensor:
        self._raise_in("latent")
        return super().latent(model, batch)

    def _raise_in(self, method: str) -> None:
        if method == self._method:
            raise self._error()


def rehearsed(task: Failing) -> None:
    rehearse(task, build_model(task), batch_of(torch.ones(4, 3)))


@pytest.mark.parametrize("method", ["build", "loss", "latent"])
def test_an_error_names_the_method_the_line_and_the_first_line_of_its_message(method: str) -> None:
    original = ValueError("no such column\nand a long explanation")
    with pytest.raises(TaskError) as caught:
        rehearsed(Failing(method, lambda: original))
    message = str(caught.value)
    assert message.startswith(f"Failing.{method} raised ValueError: no such column (test_rehearsal.py, line ")
    assert "long explanation" not in message
    assert caught.value.__cause__ is original


def test_an_error_without_words_is_told_by_its_type() -> None:
    with pytest.raises(TaskError, match=r"Failing\.loss raised ZeroDivisionError: no message"):
        rehearsed(Failing("loss", ZeroDivisionError))


@pytest.mark.parametrize("error", [LossShapeError("one loss an example"), torch.OutOfMemoryError("full")])
def test_errors_that_mean_something_here_pass_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        rehearsed(Failing("loss", lambda: error))
    assert caught.value is error


def test_a_task_that_works_is_left_in_peace() -> None:
    before = torch.random.get_rng_state()
    rehearsed(Failing("nothing", ValueError))
    assert torch.equal(torch.random.get_rng_state(), before)
