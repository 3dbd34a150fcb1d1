"""The share of the time that each route takes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradstore.gradients import GradientEngine
from gradstore.gradients.timing import time_shares
from gradstore.testing.toys import ReadoutTask, batch_of


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.mix = nn.Linear(4, 4), nn.Parameter(torch.eye(4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,ij->bj", self.linear(x), self.mix)


def shares(task: ReadoutTask) -> dict[str, float]:
    batch = batch_of(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
    engine = GradientEngine(task, task.build(), "all", d_sketch=8, seed=0)
    engine.prepare(batch)
    return {str(how): share for how, share in time_shares(engine, batch).items()}


def test_every_route_that_is_taken_has_a_share_of_the_whole() -> None:
    found = shares(ReadoutTask(Mixed))
    assert set(found) == {"rule", "vmap"}
    assert sum(found.values()) == pytest.approx(1.0)
    assert all(share > 0 for share in found.values())


def test_rules_alone_take_all_of_it() -> None:
    assert shares(ReadoutTask(lambda: nn.Linear(4, 3))) == {"rule": 1.0}
