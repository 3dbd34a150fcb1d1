"""What a Task sees of a source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gradstore.data import load_batch, open_source
from gradstore.task import example_keys


def test_bytes_become_float32_between_0_and_1(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[0, 51, 255], [1, 2, 3]], dtype=np.uint8))
    batch = load_batch(open_source(tmp_path / "x.npy"), slice(0, 1))
    assert batch.labels is None
    torch.testing.assert_close(batch.inputs, torch.tensor([[0.0, 0.2, 1.0]]), rtol=0, atol=0)


@pytest.mark.parametrize(("stored", "given"), [("float64", torch.float32), ("int16", torch.int64)])
def test_other_types_are_not_scaled(tmp_path: Path, stored: str, given: torch.dtype) -> None:
    np.save(tmp_path / "x.npy", np.array([[0, 300], [-1, 2]], dtype=stored))
    inputs = load_batch(open_source(tmp_path / "x.npy"), slice(None)).inputs
    assert inputs.dtype == given
    assert inputs.tolist() == [[0, 300], [-1, 2]]


def test_rows_labels_and_keys_belong_together(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.eye(4), y=np.array([5, 6, 7, 6]), ids=np.array(list("abcd")))
    batch = load_batch(open_source(tmp_path / "d.npz"), np.array([3, 0]))
    assert batch.inputs.argmax(dim=1).tolist() == [3, 0]
    assert batch.labels is not None
    assert batch.labels.tolist() == [1, 0]
    torch.testing.assert_close(batch.keys, example_keys(["d", "a"]))
