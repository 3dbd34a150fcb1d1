from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from gradstore.ranking.compare import compare
from gradstore.store import Store
from gradstore.testing.store_kit import store_of

LOSSES = np.random.default_rng(1).normal(size=40)


def made(path: Path, losses: np.ndarray, ids: list[str], labels: list[int] | None = None) -> Store:
    gradients = np.random.default_rng(0).normal(size=(1, len(ids), 6))
    return store_of(path, gradients, losses=losses[None], ids=ids, labels=labels or [0, 1] * (len(ids) // 2))


@pytest.fixture
def a(tmp_path: Path) -> Store:
    return made(tmp_path / "a", LOSSES, [f"x{row}" for row in range(40)])


def test_a_store_does_not_differ_from_itself(a: Store) -> None:
    found = compare(a, a)
    assert (found.counts["in both"], found.n_relabelled, found.settings) == (40, 0, ())
    assert found.spearman == pytest.approx(1.0)
    assert found.top_overlap == 1.0
    assert set(found.table.column("change").to_pylist()) == {0}


def test_examples_are_told_apart_by_id_wherever_they_stand(tmp_path: Path, a: Store) -> None:
    b = made(tmp_path / "b", LOSSES[::-1][:38], [*(f"x{row}" for row in range(39, 3, -1)), "new1", "new2"])
    a.forget(["x20", "x21"])
    b.forget(["x21", "x22"])
    found = compare(a, b, "loss")
    assert found.counts == {
        "in both": 33,
        "added": 2,
        "removed": 4,
        "forgotten in A": 1,
        "forgotten in B": 1,
        "forgotten in both": 1,
    }
    assert found.spearman == pytest.approx(1.0)
    assert found.table.num_rows == 42


def test_ranks_are_among_the_shared_and_movements_come_first(tmp_path: Path, a: Store) -> None:
    losses = LOSSES.copy()
    losses[7] = losses.min() - 1
    b = made(tmp_path / "b", losses, [f"x{row}" for row in range(40)])
    found = compare(a, b, "loss")
    first = found.table.slice(0, 1).to_pylist()[0]
    assert first["id"] == "x7"
    assert first["change"] == first["rank_a"] - first["rank_b"] == (1 + (LOSSES[7] < LOSSES).sum()) - 40
    assert found.spearman == pytest.approx(spearmanr(LOSSES, losses).statistic)


def test_settings_and_labels_that_differ_are_named(tmp_path: Path, a: Store) -> None:
    b = made(tmp_path / "b", LOSSES[:38], [f"x{row}" for row in range(38)], [1, 0] + [0, 1] * 18)
    found = compare(a, b)
    assert [(d.name, d.a, d.b) for d in found.settings] == [("n_examples", "40", "38")]
    assert found.n_relabelled == 2
    assert found.to_json()["settings"] == [{"name": "n_examples", "a": "40", "b": "38"}]


def test_stores_without_a_common_example_have_no_correlation(tmp_path: Path, a: Store) -> None:
    found = compare(a, made(tmp_path / "b", LOSSES, [f"y{row}" for row in range(40)]))
    assert (found.spearman, found.top_overlap, found.counts["in both"]) == (None, None, 0)
