"""The order of training: every example once an epoch, checkpoints denser early on, and going on from any step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradstore.errors import TaskError
from gradstore.models.schedule import Schedule, derived_seed

schedules = st.builds(
    Schedule,
    n_examples=st.integers(4, 60),
    batch_size=st.integers(1, 70),
    epochs=st.integers(4, 6),
    n_checkpoints=st.integers(1, 4),
    seed=st.integers(0, 9),
)


@given(schedules)
def test_every_epoch_visits_every_example_once(schedule: Schedule) -> None:
    steps = list(schedule.steps())
    for epoch in range(1, schedule.epochs + 1):
        rows = np.concatenate([step.rows for step in steps if step.epoch == epoch])
        assert sorted(rows) == list(range(schedule.n_examples))


@given(schedules)
def test_batches_differ_by_at_most_one_example(schedule: Schedule) -> None:
    sizes = {len(step.rows) for step in schedule.steps()}
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= schedule.batch_size


@given(schedules, st.data())
def test_going_on_from_any_step_gives_the_rest_of_the_whole(schedule: Schedule, data: st.DataObject) -> None:
    done = data.draw(st.integers(0, schedule.n_steps))
    whole = list(schedule.steps())[done:]
    for left, right in zip(schedule.steps(done), whole, strict=True):
        assert (left.number, left.epoch) == (right.number, right.epoch)
        np.testing.assert_array_equal(left.rows, right.rows)


@given(schedules)
def test_checkpoints_are_denser_early_on_and_end_with_the_training(schedule: Schedule) -> None:
    steps = schedule.checkpoint_steps
    gaps = np.diff([0, *steps])
    assert len(steps) == schedule.n_checkpoints
    assert steps[-1] == schedule.n_steps
    assert gaps.min() >= 1
    assert (np.diff(gaps) >= -1).all()  # ever wider, but for rounding


def test_epochs_and_seeds_shuffle_differently() -> None:
    orders = [
        tuple(step.rows.tolist())
        for seed in (0, 1)
        for step in Schedule(n_examples=40, batch_size=20, epochs=2, n_checkpoints=1, seed=seed).steps()
    ]
    assert len(set(orders)) == len(orders)


def test_more_checkpoints_than_steps_are_refused() -> None:
    with pytest.raises(TaskError, match="5 checkpoints do not fit into 2 training steps"):
        Schedule(n_examples=10, batch_size=10, epochs=2, n_checkpoints=5, seed=0)


def test_seeds_of_different_purposes_differ() -> None:
    seeds = {derived_seed(seed, purpose, n) for seed in (0, 1) for purpose in ("order", "noise") for n in (0, 1)}
    assert len(seeds) == 8
