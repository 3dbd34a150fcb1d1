"""Several sets of parameters, norms by layer and norms over draws: each reads as what was written, and only that."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradstore.errors import QueryError, ShapeError, TaskError
from gradstore.store import SetRows, ShardRows, Store, verify
from gradstore.store.layout import arrays
from gradstore.testing.store_kit import arrays_for, dying_after, example_batches, fill, manifest_of, shard_rows_of

IDS = [f"x{row}" for row in range(11)]
EVERYTHING: dict[str, Any] = {
    "parameter_sets": ("encoder", "all"),
    "layers": {"encoder": ("a", "b"), "all": ("a", "b", "c")},
    "n_draws": 3,
}
# Norms are rounded to float32; a sum of their squares errs by a few such roundings.
RTOL = 8 * float(np.finfo(np.float32).eps)


@pytest.fixture
def empty(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "s", manifest_of(**EVERYTHING), example_batches(IDS))


@pytest.fixture
def store(empty: Store) -> Store:
    """The second set's gradients are twice the first's."""
    fill(empty, *arrays_for(empty))
    return empty


def test_the_first_set_is_read_unless_told_otherwise(store: Store) -> None:
    gradients, _, _ = arrays_for(store)
    exact = np.linalg.norm(gradients[1].astype(np.float64), axis=1)
    np.testing.assert_allclose(store.norms(1), exact, rtol=RTOL)
    np.testing.assert_allclose(store.of_set("all").norms(1), 2 * exact, rtol=RTOL)
    np.testing.assert_array_equal(store.of_set("all").of_set("encoder").norms(1), store.norms(1))


def test_sets_have_their_own_sketches_and_share_losses_and_latents(store: Store) -> None:
    other = store.of_set("all")
    assert (store.parameters, other.parameters, store.parameter_sets) == ("encoder", "all", ("encoder", "all"))
    (store.folder / "sketches-1" / "c.0.0.0").unlink()
    assert store.unit_sketches(0, 0, 4).shape == (4, 5)
    with pytest.raises(OSError, match=r"sketches-1.c\.0\.0\.0 is committed but is missing"):
        other.unit_sketches(0, 0, 4)
    np.testing.assert_array_equal(store.losses(0), other.losses(0))
    np.testing.assert_array_equal(store.latents(1, 2, 9), other.latents(1, 2, 9))


def test_an_unknown_set_is_answered_with_those_there_are(store: Store) -> None:
    with pytest.raises(QueryError, match=r"gradients of 'encoder', 'all', not of 'decoder'.*--parameters"):
        store.of_set("decoder")


def test_a_pickled_store_reads_the_same_set(store: Store) -> None:
    again = pickle.loads(pickle.dumps(store.of_set("all")))
    np.testing.assert_array_equal(again.norms(0), store.of_set("all").norms(0))


def test_what_is_computed_from_one_set_is_never_taken_for_the_other_s(store: Store) -> None:
    assert store.content_fingerprint() != store.of_set("all").content_fingerprint()
    assert (store.set_suffix, store.of_set("all").set_suffix) == ("", "-1")


def test_squared_layer_norms_sum_to_the_squared_norm(store: Store) -> None:
    for view, n_layers in ((store, 2), (store.of_set("all"), 3)):
        by_layer = view.layer_norms(1, 3, 11)
        assert by_layer.shape == (8, n_layers) == (8, len(view.layers))
        summed = np.square(by_layer, dtype=np.float64).sum(axis=1)
        np.testing.assert_allclose(summed, np.square(view.norms(1)[3:], dtype=np.float64), rtol=RTOL)


def test_draw_norms_are_roots_of_mean_squares(store: Store) -> None:
    """The kit's draws have 2.25 times the squared norm of their mean."""
    np.testing.assert_allclose(store.draw_norms(0), 1.5 * store.norms(0), rtol=RTOL)
    assert (store.of_set("all").draw_norms(1) >= store.of_set("all").norms(1)).all()


def test_what_was_not_asked_for_is_not_there(tmp_path: Path) -> None:
    plain = Store.create(tmp_path / "plain", manifest_of(), example_batches(IDS))
    fill(plain, *arrays_for(plain))
    assert (plain.keeps("norms"), plain.keeps("layer_norms"), plain.keeps("draw_norms")) == (True, False, False)
    assert plain.layers == ()
    with pytest.raises(QueryError, match=r"keeps no norms by layer.*--per-layer-norms"):
        plain.layer_norms(0, 0, 1)
    with pytest.raises(QueryError, match=r"keeps no variance.*--draws 2"):
        plain.draw_norms(0)
    assert sorted(file.name for file in plain.folder.iterdir() if file.is_dir()) == [
        *("commits", "latents", "losses", "norms", "sketches")
    ]


def test_one_record_names_every_file_of_its_shard(store: Store) -> None:
    record = (store.folder / "commits" / "1-2.json").read_text()
    assert all(f'"{array.file_name(1, 2)}"' in record for array in arrays(store.manifest))
    assert len(list(store.folder.glob("*/c.1.2*"))) == 10


def test_a_flipped_bit_in_any_array_is_found(store: Store) -> None:
    for array in arrays(store.manifest):
        file = store.folder / array.file_name(0, 1)
        whole = file.read_bytes()
        file.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        assert verify(store).damaged == (array.file_name(0, 1),)
        file.write_bytes(whole)
    assert verify(store).ok


@pytest.mark.parametrize("n_files", range(11))
def test_a_shard_killed_between_its_files_is_written_again_to_the_same_bytes(store: Store, n_files: int) -> None:
    whole = bytes_of(store)
    store.discard(1, 1)
    for file in store.folder.glob("*/c.1.1*"):
        file.unlink()
    with dying_after(n_files), pytest.raises(KeyboardInterrupt):
        fill(store, *arrays_for(store))
    again = Store.open(store.folder)
    assert list(again.pending()) == [(1, 1)]
    fill(again, *arrays_for(again))
    assert bytes_of(again) == whole


def test_gradients_of_other_sets_are_refused(empty: Store) -> None:
    rows = shard_rows_of(empty, 0, 0, *arrays_for(empty))
    only = ShardRows({"encoder": rows.sets["encoder"]}, rows.losses, rows.latents)
    with pytest.raises(ShapeError, match="gradients of encoder; the store holds those of encoder, all"):
        empty.write_shard(0, 0, only)


def test_what_the_store_keeps_must_be_handed_over(empty: Store) -> None:
    rows = shard_rows_of(empty, 0, 0, *arrays_for(empty))
    bare = {name: SetRows(part.sketches, part.sq_norms) for name, part in rows.sets.items()}
    with pytest.raises(ShapeError, match=r"layer_sq_norms None instead of \(4, 2\); draw_sq_norms None"):
        empty.write_shard(0, 0, ShardRows(bare, rows.losses, rows.latents))


@pytest.mark.parametrize(
    ("field", "quantity"), [("layer_sq_norms", "norm by layer"), ("draw_sq_norms", "norm over the draws")]
)
def test_non_finite_norms_are_refused_by_name(empty: Store, field: str, quantity: str) -> None:
    rows = shard_rows_of(empty, 0, 1, *arrays_for(empty))
    getattr(rows.sets["all"], field)[2] = np.nan
    with pytest.raises(TaskError, match=rf"the gradient {quantity} of 1 of 4 examples is not finite: 'x6'"):
        empty.write_shard(0, 1, rows)
    assert empty.n_committed == 0


@pytest.mark.parametrize("changes", [{"parameter_sets": ()}, {"parameter_sets": ("all", "all")}])
def test_sets_need_names_of_their_own(changes: dict[str, Any]) -> None:
    with pytest.raises(ShapeError, match="names of their own"):
        manifest_of(**changes)


@pytest.mark.parametrize("layers", [{}, {"all": ()}, {"encoder": ("a",)}])
def test_layers_are_those_of_the_sets(layers: dict[str, tuple[str, ...]]) -> None:
    with pytest.raises(ShapeError, match="needs the layers of each of all"):
        manifest_of(layers=layers)


def bytes_of(store: Store) -> dict[str, bytes]:
    return {str(f.relative_to(store.folder)): f.read_bytes() for f in store.folder.rglob("*") if f.is_file()}
