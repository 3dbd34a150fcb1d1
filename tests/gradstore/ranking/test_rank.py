from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gradstore.errors import QueryError, ShapeError, StoreIncompleteError, UnknownSignalError
from gradstore.ranking.combine import improbability
from gradstore.ranking.cutoff import CutOff
from gradstore.ranking.rank import cut_off_of, rank, rank_table
from gradstore.ranking.signals import SIGNALS, compute_signals
from gradstore.store import Store

MakeStore = Callable[..., Store]


def row_of(table: pa.Table, name: str) -> dict[str, Any]:
    return next(row for row in table.to_pylist() if row["id"] == name)


def ids(table: pa.Table) -> list[str]:
    return [str(name) for name in table["id"].to_pylist()]


def test_the_odd_example_is_first(store: Store) -> None:
    first = rank(store).to_pylist()[0]
    assert (first["id"], first["rank"], first["percentile"]) == ("x41", 1, pytest.approx(100 * 59 / 60))


def test_a_ranking_has_identity_then_score_then_signals_then_reason(store: Store) -> None:
    judged = ["rank", "score", "percentile", "class_percentile", "kind", "suggested_label"]
    expected = ["id", "path", "label", *judged, *SIGNALS, "contradicting_duplicate", "reason"]
    assert rank(store).column_names == expected


def test_every_example_appears_once_in_order_of_score(store: Store) -> None:
    table = rank(store)
    assert sorted(ids(table)) == sorted(store.ids(0, 60))
    assert (np.diff(table["score"].to_numpy()) <= 0).all()
    assert table["rank"].to_pylist() == list(range(1, 61))


def test_the_default_score_is_how_improbable_its_signals_are(store: Store) -> None:
    signals = compute_signals(store) | {"near_duplicate": np.zeros(60), "clump": np.zeros(60)}
    of_gradients = ["robust_unit_leverage", "gradient_isolation"]
    of_latents = ["robust_latent_distance", "latent_isolation", "robust_latent_direction"]
    powers = [improbability(signals[name]) ** 1.5 for name in of_gradients + of_latents]
    expected = np.average(powers, axis=0, weights=[1.0, 0.5, 1.0, 1.0, 1.0]) ** (2 / 3)
    table = rank_table(store, signals).sort_by("rank")
    rows = store.row_of(ids(table))
    np.testing.assert_allclose(table["score"].to_numpy(), expected[rows], rtol=1e-12)


def test_copies_are_counted_apart_and_called_duplicates(store: Store) -> None:
    near = np.where(np.arange(60) < 3, 2.0, 0.0)
    table = rank_table(store, compute_signals(store) | {"near_duplicate": near, "clump": np.zeros(60)})
    cut = cut_off_of(table)
    assert cut is not None
    assert cut.grouped == 3
    assert {row["id"] for row in table.to_pylist() if row["kind"] == "duplicate"} == {"x0", "x1", "x2"}


def test_each_row_keeps_its_own_signals_label_and_path(store: Store) -> None:
    row = row_of(rank(store), "x32")
    assert (row["label"], row["path"]) == ("owl", "images/32.png")
    assert row["loss"] == pytest.approx(float(store.losses(0)[32] + store.losses(1)[32]) / 2, rel=1e-6)


def test_an_example_without_label_or_path_has_null(store: Store) -> None:
    row = row_of(rank(store, ["loss"], by="loss"), "x7")
    assert (row["label"], row["path"]) == (None, None)


def test_labels_without_names_are_numbers(make_store: MakeStore) -> None:
    assert row_of(rank(make_store(label_names=None), ["loss"], by="loss"), "x32")["label"] == "2"


def test_a_store_without_labels_has_null_labels(make_store: MakeStore) -> None:
    table = rank(make_store(labelled=False), ["loss"], by="loss")
    assert table["label"].null_count == 60


def test_equal_scores_stay_in_store_order(store: Store) -> None:
    table = rank_table(store, {"loss": np.zeros(60)}, by="loss")
    assert ids(table) == store.ids(0, 60)
    assert set(table["percentile"].to_pylist()) == {0.0}


def test_the_ranking_says_how_many_seem_bad(store: Store) -> None:
    assert cut_off_of(rank(store)) == CutOff(0, 0, 60, None)  # of sixty examples nothing can be said
    assert cut_off_of(pa.table({"id": ["x0"]})) is None


def test_only_suspicious_examples_and_duplicates_have_a_kind(store: Store) -> None:
    kinds = rank(store)["kind"].to_pylist()
    assert all(kinds[:15])
    assert not any(kind for kind in kinds[15:] if kind != "duplicate")


def test_percentiles_within_a_class_are_there_where_labels_are(make_store: MakeStore) -> None:
    assert rank(make_store(labelled=False))["class_percentile"].null_count == 60


def test_a_class_percentile_is_the_share_of_the_class_that_scores_lower(store: Store) -> None:
    table = rank_table(store, {"loss": np.arange(60.0)}, by="loss")
    owls = [row["class_percentile"] for row in table.to_pylist() if row["label"] == "owl"]
    assert owls == pytest.approx([100 * (len(owls) - i) / len(owls) for i in range(1, len(owls) + 1)])


def test_ranking_by_a_signal_orders_by_its_values(store: Store) -> None:
    table = rank(store, by="latent_distance")
    np.testing.assert_allclose(table["score"].to_numpy(), table["latent_distance"].to_numpy(), rtol=1e-6)


def test_what_the_ranking_needs_is_computed_beside_what_is_shown(store: Store) -> None:
    table = rank(store, ["latent_distance"])
    assert set(table.column_names) > {"latent_distance", "robust_unit_leverage", "latent_isolation"}
    assert "self_influence" not in table.column_names


def test_the_reason_names_the_signals_that_stand_out(store: Store) -> None:
    reason = rank(store).to_pylist()[0]["reason"]
    assert reason.count(" is above 98.3 % of examples: ") == 3
    assert "loss 9 is above" in reason


def test_an_ordinary_example_says_that_nothing_stands_out(store: Store) -> None:
    rows = rank_table(store, {"loss": np.arange(60.0)}, by="loss").to_pylist()
    assert rows[-1]["reason"] == "nothing stands out: its highest signal is loss, above 0.0 % of examples"
    assert rows[0]["reason"].startswith("loss 59 is above 98.3 %")


def test_an_unfinished_store_is_not_ranked(make_store: MakeStore) -> None:
    with pytest.raises(StoreIncompleteError):
        rank(make_store(shards=3))


def test_an_unknown_order_lists_what_there_is(store: Store) -> None:
    with pytest.raises(UnknownSignalError, match=r"Cannot rank by 'badness'\. Rank by one of: combined, loss"):
        rank(store, by="badness")


def test_signals_that_the_order_needs_must_be_there(store: Store) -> None:
    with pytest.raises(
        QueryError, match="latent_isolation, robust_latent_direction, near_duplicate, clump is missing from loss"
    ):
        rank_table(store, {"loss": np.zeros(60)})


def test_a_signal_that_is_nan_names_the_examples(store: Store) -> None:
    values = np.zeros(60)
    values[[3, 8]] = np.nan
    with pytest.raises(QueryError, match="2 of 60 examples: 'x3', 'x8'"):
        rank_table(store, {"loss": values}, by="loss")


def test_signals_of_another_store_are_refused(store: Store) -> None:
    with pytest.raises(ShapeError, match=r"\(59,\); the store has 60 examples"):
        rank_table(store, {"loss": np.zeros(59)}, by="loss")
