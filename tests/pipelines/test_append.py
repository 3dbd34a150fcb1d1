"""An append: the store that a build of all data at once would have made, whatever happens on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradstore
from gradstore.errors import CheckpointError, MissingLabelsError, SourceError, StoreFormatError, StoreMismatchError
from gradstore.store import Store, verify
from gradstore.store.journal import JOURNAL
from gradstore.store.repair import repair
from gradstore_pipelines.append import append, open_growing
from gradstore_pipelines.append_settings import AppendSettings
from gradstore_pipelines.build_store import build
from gradstore_pipelines.settings import BuildSettings
from gradstore_pipelines.settings_error import SettingsError

TOY = f"{Path(__file__).parent / 'toy_task.py'}:Toy"
OLD_STORE = Path(__file__).parents[1] / "old_stores" / "v2"
ROWS = np.random.default_rng(0).integers(0, 256, (300, 8, 8), dtype=np.uint8)
IDS = np.array([f"digit-{row}" for row in range(300)])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.npz and b.npz, of which all.npz is the two together; numbered.npy, more.npy and both.npy alike."""
    folder = tmp_path_factory.mktemp("data")
    for name, rows in (("a", slice(0, 170)), ("b", slice(170, 300)), ("all", slice(0, 300))):
        np.savez(folder / f"{name}.npz", images=ROWS[rows], labels=np.arange(300)[rows] % 7, ids=IDS[rows])
        np.save(folder / f"{name}.npy", ROWS[rows])
    return folder


@pytest.fixture(scope="module")
def checkpoints(data: Path) -> tuple[str, ...]:
    """Three, as somebody has trained them."""
    build(BuildSettings(source=data / "a.npz", store=data / "trained", epochs=2, n_checkpoints=3, **MODEL))
    return tuple(map(str, sorted((data / "trained" / "checkpoints").glob("*.safetensors"))))


MODEL: dict[str, Any] = {"model": TOY, "sketch_dim": 16, "device": "cpu", "shard_rows": 64, "parameters": ("all",)}


def built(source: Path, store: Path, checkpoints: tuple[str, ...]) -> Path:
    build(BuildSettings(source=source, store=store, checkpoints=checkpoints, **MODEL))
    return store


def appended(store: Path, **what: Any) -> tuple[int, int, int]:
    """New examples, new checkpoints, shards that were sketched."""
    result = append(AppendSettings(store=store, device="cpu", **what))
    return result.new_examples, result.new_checkpoints, result.sketched_shards


def files(store: Path) -> dict[str, bytes]:
    """All but what says how a store was made."""
    every = {f.relative_to(store).as_posix(): f.read_bytes() for f in store.rglob("*") if f.is_file()}
    return {name: content for name, content in every.items() if name not in ("manifest.json", "build/scan.json")}


def same(grown: Path, at_once: Path) -> bool:
    a, b = Store.open(grown).manifest, Store.open(at_once).manifest
    return files(grown) == files(at_once) and (a.identity(), a.examples_sha256) == (b.identity(), b.examples_sha256)


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_new_examples_and_checkpoints_give_the_bytes_of_one_build(
    data: Path, tmp_path: Path, checkpoints: tuple[str, ...], kind: str
) -> None:
    """Ids of their own, or row numbers that go on counting."""
    store = built(data / f"a.{kind}", tmp_path / "s", checkpoints[:2])
    assert appended(store, source=data / f"b.{kind}") == (130, 0, 6)  # the tail and two shards, at two checkpoints
    assert appended(store, checkpoints=checkpoints[2:]) == (0, 1, 5)
    assert same(store, built(data / f"all.{kind}", tmp_path / "w", checkpoints))
    assert verify(Store.open(store)).ok
    assert appended(store, source=data / f"b.{kind}") == appended(store, checkpoints=checkpoints[2:]) == (0, 0, 0)


def test_a_full_last_shard_stays_as_it_is(data: Path, tmp_path: Path, checkpoints: tuple[str, ...]) -> None:
    np.save(tmp_path / "first.npy", ROWS[:128])
    np.save(tmp_path / "then.npy", ROWS[128:])
    store = built(tmp_path / "first.npy", tmp_path / "s", checkpoints)
    before = {name: content for name, content in files(store).items() if name.startswith(("commits", "norms/c"))}
    assert appended(store, source=tmp_path / "then.npy") == (172, 0, 9)
    assert before.items() <= files(store).items()
    assert same(store, built(data / "all.npy", tmp_path / "w", checkpoints))


def test_an_interrupted_append_goes_on(
    data: Path, tmp_path: Path, checkpoints: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = built(data / "a.npz", tmp_path / "s", checkpoints[:1])
    with monkeypatch.context() as patched:
        patched.setattr(Store, "_commit", _Dies(after=1))
        with pytest.raises(KeyboardInterrupt):
            appended(store, source=data / "b.npz")
    assert Store.open(store).n_examples == 170
    assert verify(Store.open(store)).ok
    assert gradstore.open(store).rank().num_rows == 170
    assert (open_growing(store).n_examples, open_growing(store).n_committed) == (300, 3)
    with pytest.raises(StoreMismatchError, match=r"Another append .*\n.*source.*\nFinish that one first"):
        appended(store, source=data / "all.npz")
    assert appended(store)[2] == 2  # without saying what: the journal knows
    assert not (store / JOURNAL).exists()
    (store / "signals.parquet").unlink(missing_ok=True)
    assert same(store, built(data / "all.npz", tmp_path / "w", checkpoints[:1]))


class _Dies:
    """In place of `Store._commit`: commits so often, then the process is interrupted."""

    def __init__(self, after: int) -> None:
        self._left, self._commit = after, Store._commit

    def __get__(self, store: Store, owner: type[Store]) -> Any:
        return lambda record: self(store, record)

    def __call__(self, store: Store, record: Any) -> None:
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        self._commit(store, record)


def test_ids_that_the_store_has_are_refused_by_name(data: Path, tmp_path: Path, checkpoints: tuple[str, ...]) -> None:
    store = built(data / "a.npz", tmp_path / "s", checkpoints[:1])
    np.savez(tmp_path / "again.npz", images=ROWS[:3], labels=[0, 1, 2], ids=["new", "digit-7", "digit-169"])
    with pytest.raises(SourceError, match="2 pairs of examples have the same id: 'digit-") as refused:
        appended(store, source=tmp_path / "again.npz")
    assert "--id-prefix again/" in refused.value.__notes__[0]
    assert appended(store, source=tmp_path / "again.npz", id_prefix="again/") == (3, 0, 1)
    assert Store.open(store).row_of(["again/digit-7"]).tolist() == [171]


def test_the_same_examples_under_another_name_are_refused(
    data: Path, tmp_path: Path, checkpoints: tuple[str, ...]
) -> None:
    store = built(data / "a.npy", tmp_path / "s", checkpoints[:1])
    np.save(tmp_path / "copy.npy", ROWS[:170])
    with pytest.raises(SourceError, match=r"copy.npy' are in the store already"):
        appended(store, source=tmp_path / "copy.npy")


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"images": ROWS[:5, :, :7], "labels": [0] * 5}, SourceError, "of shape .1, 8, 7.; those of"),
        ({"images": ROWS[:5] / 255, "labels": [0] * 5}, SourceError, "holds float32 examples"),
        ({"images": ROWS[:5]}, MissingLabelsError, "Pass --labels FILE"),
        ({"images": ROWS[:5], "labels": [0, 1, 2, 3, 9]}, MissingLabelsError, "has the label '9'"),
    ],
)
def test_examples_unlike_the_others_are_refused_before_anything_is_written(
    data: Path, tmp_path: Path, arrays: dict[str, Any], error: type[Exception], message: str
) -> None:
    before = files(data / "trained")
    np.savez(tmp_path / "other.npz", **arrays, ids=[f"o{row}" for row in range(5)])
    with pytest.raises(error, match=message):
        appended(data / "trained", source=tmp_path / "other.npz")
    assert files(data / "trained") == before


def test_data_that_have_changed_are_refused(data: Path, tmp_path: Path, checkpoints: tuple[str, ...]) -> None:
    np.save(tmp_path / "mine.npy", ROWS[:70])
    store = built(tmp_path / "mine.npy", tmp_path / "s", checkpoints[:1])
    np.save(tmp_path / "mine.npy", ROWS[1:71])
    with pytest.raises(StoreMismatchError, match="have changed since it was built"):
        appended(store, source=data / "b.npy")


def test_a_checkpoint_that_is_there_or_does_not_fit_is_refused(
    data: Path, tmp_path: Path, checkpoints: tuple[str, ...]
) -> None:
    store = built(data / "a.npy", tmp_path / "s", checkpoints[:1])
    with pytest.raises(CheckpointError, match=r"is checkpoint 0 of .* already"):
        appended(store, checkpoints=checkpoints[:2])
    import torch

    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="does not fit the model"):
        appended(store, checkpoints=(str(tmp_path / "other.pt"),), learning_rate=0.1)


def test_shards_that_were_taken_back_are_made_again(data: Path, tmp_path: Path, checkpoints: tuple[str, ...]) -> None:
    store = built(data / "a.npy", tmp_path / "s", checkpoints[:1])
    appended(store, source=data / "b.npy")
    before = files(store)
    (store / "norms" / "c.0.4").write_bytes(b"")
    repair(Store.open(store), verify(Store.open(store)))
    assert appended(store) == (0, 0, 1)
    assert files(store) == before


def test_what_does_not_go_together_is_refused(data: Path) -> None:
    with pytest.raises(SettingsError, match="one after the other"):
        AppendSettings(store="s", source="a.npy", checkpoints=("c.pt",))
    with pytest.raises(SettingsError, match="--id-prefix goes with new examples"):
        AppendSettings(store="s", id_prefix="x")
    with pytest.raises(SettingsError, match="--learning-rate"):
        AppendSettings(store="s", source="a.npy", learning_rate=0.1)


def test_a_store_of_an_older_format_does_not_grow(data: Path) -> None:
    with pytest.raises(StoreFormatError, match="has format 2"):
        appended(OLD_STORE, source=data / "b.npy")
    assert not (OLD_STORE / JOURNAL).exists()
