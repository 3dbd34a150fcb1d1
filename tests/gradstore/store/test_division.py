"""Quotients as float16, held against NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradstore.store import division
from gradstore.store.division import divide_by_norms


def both_ways(sketches: np.ndarray, norms: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    found = []
    for compiled in (True, False):
        monkeypatch.setattr(division, "has_numba", lambda compiled=compiled: compiled)
        out = np.full(sketches.shape, np.nan, np.float16)
        with np.errstate(over="ignore", invalid="ignore"):
            divide_by_norms(sketches, norms, out)
        found.append(out.view(np.uint16).tolist())
    return found


def test_every_half_every_tie_and_what_lies_beside_gives_numpys_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    every = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    ties = (every[1:] + every[:-1]) / 2
    values = np.concatenate([every, ties, np.nextafter(ties, 0, dtype=np.float32), np.nextafter(ties, 1e9)])
    values = np.concatenate([values, -values, np.array([65519, 65520, 1e30, np.inf, -np.inf], np.float32)])
    compiled, plain = both_ways(values[None].astype(np.float32), np.ones(1), monkeypatch)
    assert compiled == plain


def test_quotients_are_rounded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    sketches = (rng.standard_normal((200, 64)) * 10.0 ** rng.uniform(-12, 3, (200, 1))).astype(np.float32)
    norms = np.linalg.norm(sketches.astype(np.float64), axis=1) * rng.uniform(0.3, 3e5, 200)
    compiled, plain = both_ways(sketches, norms, monkeypatch)
    assert compiled == plain


def test_rows_without_a_norm_are_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, plain = both_ways(np.ones((3, 4), np.float32), np.array([0.0, 1e-60, 2.0]), monkeypatch)
    assert compiled == plain == [[0] * 4, [0] * 4, [0x3800] * 4]
