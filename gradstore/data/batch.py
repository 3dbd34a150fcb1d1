"""From rows in a file to the Batch that a Task sees."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from gradstore.data.source import ExampleSource, Rows
from gradstore.task import Batch, example_keys


def load_batch(source: ExampleSource, index: Rows) -> Batch:
    """Examples on the CPU, in the order asked for: bytes scaled to 0..1 as float32, other types as they are.

    Raises:
        IndexError: a row number outside the source.
        CorruptExampleError: a file was changed after it was opened.
    """
    labels = source.labels(index)
    return Batch(
        inputs=as_inputs(source.rows(index)),
        labels=None if labels is None else torch.from_numpy(labels),
        keys=example_keys(source.ids(index)),
    )


def as_inputs(rows: np.ndarray) -> Tensor:
    """Bytes scaled to 0..1 as float32; other types as they are."""
    inputs = torch.from_numpy(rows)
    return inputs.to(torch.float32).div_(255) if inputs.dtype == torch.uint8 else inputs
