from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gradstore.errors import QueryError, ShapeError, StoreIncompleteError, TaskError, UnknownExampleError
from gradstore.store import ShardRows, Store
from gradstore.testing.store_kit import arrays_for, example_batches, fill, manifest_of, shard_rows_of, store_of

N_EXAMPLES, SHARD_ROWS = 23, 5


@pytest.fixture(scope="module")
def gradients() -> NDArray[np.float32]:
    scale = np.exp(np.random.default_rng(1).normal(0, 4, (2, N_EXAMPLES, 1)))
    return (np.random.default_rng(0).normal(size=(2, N_EXAMPLES, 6)) * scale).astype(np.float32)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, gradients: NDArray[np.float32]) -> Store:
    losses = np.arange(2 * N_EXAMPLES, dtype=np.float32).reshape(2, N_EXAMPLES)
    return store_of(tmp_path_factory.mktemp("store") / "s", gradients, losses=losses, shard_rows=SHARD_ROWS)


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    """A store of 11 examples and 2 checkpoints in which no shard is committed."""
    return Store.create(tmp_path / "empty", manifest_of(), example_batches([f"x{row}" for row in range(11)]))


ranges = st.tuples(st.integers(0, N_EXAMPLES), st.integers(0, N_EXAMPLES)).map(sorted)


def test_unit_sketches_times_norms_are_the_sketches(store: Store, gradients: NDArray[np.float32]) -> None:
    """Rounding a unit row's entry to float16 errs by at most eps/2 of it, or, below the normal numbers, by half the
    smallest subnormal; the float32 norm adds eps(float32)/2 of the entry.
    """
    half, single = np.finfo(np.float16), np.finfo(np.float32)
    for checkpoint in range(2):
        exact = gradients[checkpoint].astype(np.float64)
        norms = np.linalg.norm(exact, axis=1)
        restored = store.unit_sketches(checkpoint, 0, N_EXAMPLES).astype(np.float64) * store.norms(checkpoint)[:, None]
        relative = np.abs(exact) * (half.eps / 2 + single.eps)
        absolute = norms[:, None] * half.smallest_subnormal / 2 * (1 + single.eps)
        assert (np.abs(restored - exact) <= np.maximum(relative, absolute)).all()


def test_norms_are_the_float32_nearest_to_the_exact_ones(store: Store, gradients: NDArray[np.float32]) -> None:
    exact = np.linalg.norm(gradients[1].astype(np.float64), axis=1)
    np.testing.assert_allclose(store.norms(1), exact, rtol=float(np.finfo(np.float32).eps))


def test_losses_and_learning_rates_come_back(store: Store) -> None:
    np.testing.assert_array_equal(store.losses(1), np.arange(N_EXAMPLES, 2 * N_EXAMPLES))
    np.testing.assert_array_equal(store.learning_rates, [1.0, 1.0])
    assert store.learning_rates.dtype == np.float64


@settings(deadline=None)
@given(span=ranges, checkpoint=st.integers(0, 1))
def test_a_range_is_the_slice_of_the_whole(
    store: Store, gradients: NDArray[np.float32], span: list[int], checkpoint: int
) -> None:
    start, stop = span
    np.testing.assert_array_equal(store.latents(checkpoint, start, stop), gradients[checkpoint, start:stop])
    whole = store.unit_sketches(checkpoint, 0, N_EXAMPLES)
    np.testing.assert_array_equal(store.unit_sketches(checkpoint, start, stop), whole[start:stop])


@settings(deadline=None)
@given(indices=st.lists(st.integers(0, N_EXAMPLES - 1), max_size=40), checkpoint=st.integers(0, 1))
def test_scattered_rows_come_in_the_order_asked_for(
    store: Store, gradients: NDArray[np.float32], indices: list[int], checkpoint: int
) -> None:
    rows = np.array(indices, dtype=np.int64)
    np.testing.assert_array_equal(store.latent_rows(checkpoint, rows), gradients[checkpoint, rows])
    whole = store.unit_sketches(checkpoint, 0, N_EXAMPLES)
    np.testing.assert_array_equal(store.sketch_rows(checkpoint, rows), whole[rows])


@settings(deadline=None)
@given(rows=st.integers(1, 40))
def test_blocks_cover_all_examples_in_order_within_shards(store: Store, rows: int) -> None:
    blocks = list(store.blocks(rows))
    assert [row for start, stop in blocks for row in range(start, stop)] == list(range(N_EXAMPLES))
    assert all(0 < stop - start <= rows for start, stop in blocks)
    assert all(start // SHARD_ROWS == (stop - 1) // SHARD_ROWS for start, stop in blocks)


@settings(max_examples=12, deadline=None)
@given(n_examples=st.integers(1, 12), shard_rows=st.integers(1, 15))
def test_any_number_of_examples_and_shard_rows_round_trips(
    tmp_path_factory: pytest.TempPathFactory, n_examples: int, shard_rows: int
) -> None:
    gradients = np.random.default_rng(n_examples).normal(size=(1, n_examples, 3)).astype(np.float32)
    store = store_of(tmp_path_factory.mktemp("any") / "s", gradients, shard_rows=shard_rows)
    assert store.is_complete
    assert store.n_shards == len(range(0, n_examples, shard_rows))
    np.testing.assert_array_equal(store.latents(0, 0, n_examples), gradients[0])


def test_a_zero_gradient_is_stored_as_zeros(tmp_path: Path) -> None:
    store = store_of(tmp_path / "s", [[[0.0, 0.0], [3.0, 4.0]]])
    np.testing.assert_array_equal(store.unit_sketches(0, 0, 2), np.array([[0, 0], [0.6, 0.8]], dtype=np.float16))
    np.testing.assert_array_equal(store.norms(0), [0, 5])


@pytest.mark.parametrize("scale", [1e-20, 1e-6, 1e6, 1e18])
def test_gradients_of_any_size_neither_overflow_nor_vanish(tmp_path: Path, scale: float) -> None:
    store = store_of(tmp_path / "s", [[[3 * scale, 4 * scale]]])
    np.testing.assert_array_equal(store.unit_sketches(0, 0, 1), np.array([[0.6, 0.8]], dtype=np.float16))


@pytest.mark.parametrize(
    ("field", "quantity"),
    [("losses", "loss"), ("sq_norms", "gradient norm"), ("sketches", "sketch"), ("latents", "latent")],
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_rows_are_refused_by_name(empty: Store, field: str, quantity: str, value: float) -> None:
    rows = _rows(empty, 0, 1)
    getattr(rows if hasattr(rows, field) else rows.sets["all"], field)[2] = value
    with pytest.raises(TaskError, match=rf"checkpoint 0 the {quantity}.* of 1 of 4 examples is not finite: 'x6'"):
        empty.write_shard(0, 1, rows)
    assert empty.n_committed == 0


def test_rows_of_another_shape_are_refused(empty: Store) -> None:
    with pytest.raises(ShapeError, match="shard of 3 examples was handed over with 4"):
        empty.write_shard(0, 2, _rows(empty, 0, 1))


def test_uncommitted_rows_cannot_be_read(empty: Store) -> None:
    empty.write_shard(0, 0, _rows(empty, 0, 0))
    assert len(empty.latents(0, 0, 4)) == 4
    for read in (
        lambda: empty.latents(0, 3, 5),
        lambda: empty.unit_sketches(1, 0, 1),
        lambda: empty.norms(0),
        lambda: empty.losses(0),
        lambda: empty.sketch_rows(0, np.array([0, 9])),
        lambda: empty.latent_rows(0, np.array([9])),
        empty.require_complete,
    ):
        with pytest.raises(StoreIncompleteError, match=r"1 of 6 shards are done.*[Rr]un the same build command"):
            read()


def test_a_store_says_what_is_done(empty: Store) -> None:
    assert list(empty.pending()) == [(c, s) for c in range(2) for s in range(3)]
    empty.write_shard(1, 2, _rows(empty, 1, 2))
    assert (empty.n_committed, empty.is_complete, empty.is_committed(1, 2)) == (1, False, True)
    assert list(empty.committed_blocks(1, rows=2)) == [(8, 10), (10, 11)]
    assert list(empty.committed_blocks(0)) == []
    fill(empty, *arrays_for(empty))
    assert empty.is_complete
    empty.require_complete()


def test_another_process_commits_are_seen(empty: Store) -> None:
    other = Store.open(empty.folder)
    other.write_shard(0, 0, _rows(other, 0, 0))
    assert empty.is_committed(0, 0)
    other.write_shard(0, 1, _rows(other, 0, 1))
    assert len(empty.latents(0, 0, 8)) == 8
    other.write_shard(1, 1, _rows(other, 1, 1))
    assert empty.n_committed == 3


def test_a_committed_shard_stays_as_it_is(empty: Store) -> None:
    empty.write_shard(0, 0, _rows(empty, 0, 0))
    before = empty.content_fingerprint()
    rows = _rows(empty, 0, 0)
    rows.losses[:] = 7
    empty.write_shard(0, 0, rows)
    assert empty.content_fingerprint() == before
    empty.discard(0, 0)
    empty.write_shard(0, 0, rows)
    assert empty.content_fingerprint() != before
    assert empty.latents(0, 0, 4).shape == (4, 3)


def test_examples_at_names_scattered_rows_in_the_order_asked_for(tmp_path: Path) -> None:
    manifest = manifest_of(n_examples=3, label_names=("cat", "dog"))
    store = Store.create(tmp_path / "s", manifest, example_batches(["a", "b", "c"], [1, None, 0], ["/a", None, "/c"]))
    assert store.examples_at(np.array([2, 0, 1, 2])).to_pylist() == [
        {"id": "c", "label": "cat", "path": "/c"},
        {"id": "a", "label": "dog", "path": "/a"},
        {"id": "b", "label": None, "path": None},
        {"id": "c", "label": "cat", "path": "/c"},
    ]


def test_a_store_can_be_pickled(store: Store) -> None:
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.norms(0), store.norms(0))
    assert again.manifest == store.manifest


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, N_EXAMPLES + 1), (5, 4)])
def test_rows_outside_the_store_are_refused(store: Store, start: int, stop: int) -> None:
    with pytest.raises(UnknownExampleError, match=f"has rows 0 to {N_EXAMPLES - 1}, not {start}:{stop}"):
        store.latents(0, start, stop)
    with pytest.raises(UnknownExampleError):
        store.ids(start, stop)
    with pytest.raises(UnknownExampleError, match=f"not {N_EXAMPLES}"):
        store.latent_rows(0, np.array([N_EXAMPLES]))


def test_checkpoints_and_shards_outside_the_store_are_refused(store: Store) -> None:
    with pytest.raises(QueryError, match="has checkpoints 0 to 1, not 2"):
        store.norms(2)
    with pytest.raises(QueryError, match="has shards 0 to 4 a checkpoint, not 5"):
        store.shard_range(5)
    with pytest.raises(QueryError):
        store.is_committed(-1, 0)


def _rows(store: Store, checkpoint: int, shard: int) -> ShardRows:
    return shard_rows_of(store, checkpoint, shard, *arrays_for(store))
