"""The CUDA kernels, run by Triton's interpreter where Triton is installed: no GPU is needed to see them right."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is not installed (CPU builds of torch come without it)")

_COMPARISON = """
import torch
from gradstore.sketch import fold, fold_triton

generator = torch.Generator().manual_seed(0)
for rows, columns, d in [(3, 50, 40), (8, 9, 1024), (5, 3000, 1024), (1, 1, 7)]:
    offsets = torch.randint(0, d, (rows,), generator=generator)
    signs = 1 - 2 * torch.randint(0, 2, (rows, columns), generator=generator).float()
    grad = torch.randn(4, rows, columns, generator=generator)
    left, right = grad[:, :, 0].contiguous(), grad[:, 0].contiguous()
    expected, found = torch.zeros(4, d + columns), torch.zeros(4, d + columns)
    fold.fold_dense(expected, offsets, signs, grad)
    fold_triton.fold_dense(found, offsets, signs, grad)
    fold.fold_outer(expected, offsets, signs, left, right)
    fold_triton.fold_outer(found, offsets, signs, left, right)
    assert torch.equal(expected, found), (rows, columns, d)
print("equal")
"""


def test_triton_gives_the_bits_of_the_cpu() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", _COMPARISON]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert found.stdout.strip() == "equal", found.stderr
