"""The compiled fold and the plain one are the same to the last bit, so a store does not depend on which there is."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradstore.sketch import CountSketch, fold

SHAPES = {"wide": (5, 70), "tall": (40, 3)}


def sketched(dtype: torch.dtype, seed: int) -> torch.Tensor:
    """Dense and rank-one gradients of both shapes through a short sketch; views that are not contiguous among them."""
    generator = torch.Generator().manual_seed(seed)
    buffer = CountSketch(SHAPES, 16, seed, dtype=dtype).buffer(6)
    for name, (rows, columns) in SHAPES.items():
        grad = torch.randn(4, columns, rows, generator=generator, dtype=dtype).mT
        buffer.add_dense(name, grad, first=1)
        left = torch.randn(rows, 6, generator=generator, dtype=dtype).T
        buffer.add_outer(name, left, torch.randn(6, columns, generator=generator, dtype=dtype))
    return buffer.result()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**30))
def test_compiled_and_plain_fold_give_the_same_bits(dtype: torch.dtype, seed: int) -> None:
    pytest.importorskip("numba")
    compiled = sketched(dtype, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fold, "has_numba", lambda: False)
        plain = sketched(dtype, seed)
    assert torch.equal(compiled, plain)


def test_without_numba_the_plain_fold_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(function: object) -> None:
        raise AssertionError("nothing is compiled without numba")

    monkeypatch.setattr(fold, "has_numba", lambda: False)
    monkeypatch.setattr(fold, "compiled", refuse)
    assert bool(sketched(torch.float32, 0).abs().sum() > 0)
