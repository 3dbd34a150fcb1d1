"""How many rows are evaluated together, and how many make a shard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gradstore.rehearsal import saved_bytes
from gradstore.testing.toys import ReadoutTask, batch_of
from gradstore_pipelines.settings import REQUEST, BuildSettings


def settings(store: Path = Path("new.store"), **values: int) -> BuildSettings:
    return BuildSettings(source=Path("data.npy"), store=store, device="cpu", **values)  # type: ignore[arg-type]


@given(n_examples=st.integers(1, 10**7), bytes_each=st.integers(0, 10**9), sketch_dim=st.integers(1, 10**5))
def test_a_shard_is_made_of_whole_blocks(n_examples: int, bytes_each: int, sketch_dim: int) -> None:
    asked = settings(sketch_dim=sketch_dim)
    block = asked.block(n_examples, bytes_each)
    assert block in (16, 32, 64, 128, 256, 512)
    assert asked.rows_a_shard(n_examples, block) % block == 0


def test_small_examples_are_evaluated_by_the_hundreds_and_large_ones_by_few() -> None:
    assert settings().block(60_000, 20_000) == 512
    assert settings().block(60_000, 200_000) == 128
    assert settings().block(60_000, 1_000_000) == 64
    assert settings().block(60_000, 50_000_000) == 16


def test_small_data_is_still_shared_out() -> None:
    block = settings().block(1_797, 20_000)
    assert block == 64
    assert settings().rows_a_shard(1_797, block) == 256


def test_shards_of_a_size_asked_for_hold_whole_blocks() -> None:
    assert settings(shard_rows=192).block(60_000, 0) == 64
    assert settings(shard_rows=256).block(60_000, 0) == 256


def test_a_store_that_is_begun_keeps_its_block(tmp_path: Path) -> None:
    asked = settings(tmp_path)
    assert asked.begun_block() is None
    asked.place.write(REQUEST, json.dumps({"block": 128}).encode())
    assert asked.begun_block() == 128


@pytest.mark.parametrize("n_examples", [1, 4])
def test_saved_bytes_are_those_of_an_example(n_examples: int) -> None:
    task = ReadoutTask(lambda: nn.Sequential(nn.Linear(100, 50), nn.Sigmoid()))
    found = saved_bytes(task, task.build(), batch_of(torch.rand(n_examples, 100)))
    activations = 4 * (100 + 50)  # the input of the linear layer and the output of the sigmoid, both float32
    readout = 4 * 50  # what its sine keeps
    assert activations <= found <= activations + 3 * readout
