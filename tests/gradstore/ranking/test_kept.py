"""A ranking without forgotten examples is that of a store which never had them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gradstore
from gradstore.ranking.signals import SIGNALS
from gradstore.store.kept import KeptRows, kept_rows
from gradstore.testing.store_kit import store_of

GONE = [0, 3, 17, 18, 19, 59]
KEPT = [row for row in range(60) if row not in GONE]


@pytest.fixture
def stores(tmp_path: Path) -> tuple[gradstore.GradientStore, gradstore.GradientStore]:
    """One with forgotten examples, and one that never had them."""
    random = np.random.default_rng(0)
    gradients, losses = random.normal(size=(2, 60, 8)), random.normal(size=(2, 60))
    labels = [row % 3 for row in range(60)]
    whole = store_of(tmp_path / "whole", gradients, losses=losses, labels=labels, shard_rows=16)
    names, kept_labels = [f"x{row}" for row in KEPT], [labels[row] for row in KEPT]
    store_of(tmp_path / "kept", gradients[:, KEPT], losses=losses[:, KEPT], labels=kept_labels, ids=names)
    whole.forget([f"x{row}" for row in GONE])
    return gradstore.open(tmp_path / "whole"), gradstore.open(tmp_path / "kept")


def test_every_signal_and_rank_is_as_if_they_had_never_been_there(
    stores: tuple[gradstore.GradientStore, gradstore.GradientStore],
) -> None:
    found, expected = (opened.rank().sort_by("id") for opened in stores)
    assert found.column("id").to_pylist() == expected.column("id").to_pylist()
    assert found.column("label").to_pylist() == expected.column("label").to_pylist()
    for name in ("score", "percentile", *SIGNALS):  # float32 sums are taken over other blocks
        np.testing.assert_allclose(found.column(name).to_numpy(), expected.column(name).to_numpy(), rtol=1e-4)


def test_cached_signals_follow_what_is_forgotten(
    stores: tuple[gradstore.GradientStore, gradstore.GradientStore],
) -> None:
    opened, _ = stores
    assert opened.rank().num_rows == 54
    opened.store.remember(["x3"])
    assert opened.rank().num_rows == 55
    opened.store.remember()
    assert opened.rank().num_rows == 60


def test_a_store_without_forgotten_examples_is_read_as_it_is(
    stores: tuple[gradstore.GradientStore, gradstore.GradientStore],
) -> None:
    forgetful, whole = stores
    assert kept_rows(whole.store) is whole.store
    assert isinstance(kept_rows(forgetful.store), KeptRows)


def test_blocks_cover_what_is_kept_and_skip_what_is_not(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s", np.arange(60.0).reshape(1, 12, 5), shard_rows=4)
    store.forget([f"x{row}" for row in (1, 4, 5, 6, 7)])  # all of the second shard
    kept = kept_rows(store)
    assert list(kept.blocks()) == [(0, 3), (3, 7)]
    np.testing.assert_array_equal(kept.latents(0, 0, 7), store.latents(0, 0, 12)[[0, 2, 3, 8, 9, 10, 11]])
    assert kept.ids(2, 5) == ["x3", "x8", "x9"]
