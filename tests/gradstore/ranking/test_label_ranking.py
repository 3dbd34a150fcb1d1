"""Rankings of stores that have labels and predictions of them: three clear clusters, a tenth mislabelled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from gradstore.ranking.combine import LABELLED_COMBINATION, combination_in, combined, tail_sum
from gradstore.ranking.cutoff import estimate_wrong
from gradstore.ranking.rank import cut_off_of, rank
from gradstore.ranking.signals import SIGNALS
from gradstore.store import SetRows, ShardRows, Store
from gradstore.testing.store_kit import example_batches, manifest_of

N, WRONG, NAMES = 240, 24, ("cat", "dog", "owl")


@dataclass(frozen=True, eq=False)
class Labelled:
    store: Store
    true: NDArray[np.int64]
    wrong: NDArray[np.bool_]

    def rows(self, table: pa.Table) -> NDArray[np.int64]:
        return self.store.row_of([str(name) for name in table.column("id").to_pylist()])


def labelled(folder: Path, n_classes: int | None = 3) -> Labelled:
    rng = np.random.default_rng(0)
    true, wrong = rng.integers(0, 3, N), np.arange(N) < WRONG
    given = np.where(wrong, (true + 1) % 3, true)
    logits = 4.0 * np.eye(3)[true] + rng.normal(size=(N, 3))
    predictions = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
    latents = (5.0 * np.eye(3)[true] + rng.normal(size=(N, 3))).astype(np.float32)
    sketches = rng.normal(size=(N, 4)).astype(np.float32)
    manifest = manifest_of(
        n_examples=N,
        d_sketch=4,
        d_latent=3,
        shard_rows=64,
        learning_rates=(0.1,),
        label_names=NAMES,
        n_classes=n_classes,
    )
    store = Store.create(folder, manifest, example_batches([f"x{i}" for i in range(N)], given.tolist()))
    for _, shard in list(store.pending()):
        span = slice(store.shard_range(shard).start, store.shard_range(shard).stop)
        sets = {
            name: SetRows(sketches[span], np.square(sketches[span]).sum(axis=1)) for name in manifest.parameter_sets
        }
        losses = -np.take_along_axis(predictions, given[:, None], axis=1)[span, 0]
        said = None if n_classes is None else predictions[span]
        store.write_shard(0, shard, ShardRows(sets, losses, latents[span], said))
    return Labelled(store, true, wrong)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    return labelled(tmp_path_factory.mktemp("labelled") / "store")


@pytest.fixture(scope="module")
def table(data: Labelled) -> pa.Table:
    return rank(data.store)


def test_wrong_labels_come_first(data: Labelled, table: pa.Table) -> None:
    first = data.rows(table)[:WRONG]
    assert data.wrong[first].mean() > 0.9


def test_the_score_is_the_tail_sum_of_doubt_odds_and_loss(data: Labelled, table: pa.Table) -> None:
    signals = {name: table.column(name).to_numpy().astype(float) for name in LABELLED_COMBINATION}
    expected = tail_sum(signals, {"neighbour_doubt": 0.1, "label_error": 1.0, "loss": 0.1})
    np.testing.assert_allclose(table.column("score").to_numpy(), expected, rtol=1e-6)


def test_label_errors_are_named_and_a_label_suggested(data: Labelled, table: pa.Table) -> None:
    rows = data.rows(table)
    named = np.array([kind == "label error" for kind in table.column("kind").to_pylist()])
    suggested = np.array(table.column("suggested_label").to_pylist(), dtype=object)
    assert data.wrong[rows][named].mean() > 0.9
    assert named.sum() > 0.9 * WRONG
    assert all(name is None for name in suggested[~named])
    truly = named & data.wrong[rows]
    assert (suggested[truly] == np.array(NAMES, dtype=object)[data.true[rows][truly]]).mean() > 0.9


def test_a_suggestion_is_never_the_label_itself(table: pa.Table) -> None:
    pairs = zip(table.column("label").to_pylist(), table.column("suggested_label").to_pylist(), strict=True)
    assert all(label != suggested for label, suggested in pairs)


def test_the_cut_off_counts_the_wrong_labels(table: pa.Table) -> None:
    found = cut_off_of(table)
    assert found is not None
    assert found.low <= WRONG <= found.high
    assert abs(found.n - WRONG) <= 6


def test_without_predictions_the_ranking_needs_no_labels(tmp_path: Path) -> None:
    without = labelled(tmp_path / "store", n_classes=None)
    table = rank(without.store)
    assert not {"label_error", "neighbour_doubt"} & set(table.column_names)
    assert table.column("suggested_label").null_count == N


def test_one_signal_may_be_shown_alone_and_still_labels_rank(data: Labelled, table: pa.Table) -> None:
    alone = rank(data.store, signals=["loss"])
    assert alone.column("id").to_pylist() == table.column("id").to_pylist()


def test_labels_are_combined_only_where_they_can_be_judged() -> None:
    assert combination_in(SIGNALS) != LABELLED_COMBINATION == combination_in([*SIGNALS, *LABELLED_COMBINATION])


def test_the_combination_of_labels_leaves_all_other_signals_out() -> None:
    rng = np.random.default_rng(0)
    of_labels = {name: rng.normal(size=20) for name in LABELLED_COMBINATION}
    others = {name: rng.normal(size=20) for name in SIGNALS}
    np.testing.assert_array_equal(combined(others | of_labels), combined(of_labels))


def test_labels_that_may_well_be_wrong_are_counted() -> None:
    probabilities = np.repeat([0.95, 0.5, 0.05, 0.001], [10, 10, 7, 100])
    scores = np.arange(127.0)[::-1]
    found = estimate_wrong(np.log(probabilities / (1 - probabilities)), scores)
    assert found.n == 20
    assert found.low <= 10
    assert found.high == 27
    assert found.score == scores[19]
