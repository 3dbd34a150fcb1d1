"""A self-test of small stores: what is planted is found, nothing is done twice, and the store stays as it is."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gradstore.data import reopen
from gradstore.errors import CheckpointError, QueryError, SourceError, StoreNotFoundError
from gradstore.ranking.signals import Computed
from gradstore.ranking.signals.base import Values
from gradstore.store import Store
from gradstore_pipelines import SelftestSettings, selftest
from gradstore_pipelines.append import append
from gradstore_pipelines.append_settings import AppendSettings
from gradstore_pipelines.build_store import BuildResult, build, is_trained, train_checkpoints
from gradstore_pipelines.settings import BuildSettings, SettingsError
from gradstore_pipelines.trials import run as trials_run
from gradstore_pipelines.trials.judged import KindResult
from gradstore_pipelines.trials.like import epochs_on, settings_like
from gradstore_pipelines.trials.result import SelftestResult
from gradstore_pipelines.trials.sample import drawn
from tests.pipelines.test_fidelity import Listener

HERE = Path(__file__).parent
TOY, BAG = f"{HERE / 'toy_task.py'}:Toy", f"{HERE / 'token_task.py'}:Bag"
SMALL = {"epochs": 4, "n_checkpoints": 1, "sketch_dim": 16, "train_batch_size": 16, "device": "cpu"}
N = 96
KINDS = ("inverted", "noise", "duplicates")
BASELINES = {"loss", "latent_distance", "raw_isolation_forest", "random"}


def pictures(n: int = N) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Bright bars of few kinds, a little noisy: what is planted stands out."""
    rng = np.random.default_rng(0)
    bars = np.zeros((4, 8, 8))
    for kind in range(4):
        bars[kind, :, 2 * kind] = 200
    return (bars[rng.integers(0, 4, n)] + rng.integers(0, 40, (n, 8, 8))).astype(np.uint8)


def built(folder: Path, model: str = TOY, **values: Any) -> Path:
    build(BuildSettings(source=folder / "data.npz", store=folder / "store", model=model, **{**SMALL, **values}))
    return folder / "store"


def outcome(store: Path, reporter: Listener | None = None, **values: Any) -> SelftestResult:
    return selftest(SelftestSettings(store=store, **{"device": "cpu", "share": 0.06, **values}), reporter)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Coarser intervals and smaller forests: neither is what is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gradstore_pipelines.trials.judged._RESAMPLES", 10)
        patch.setattr("gradstore_pipelines.trials.features._TREES", 10)
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    np.savez(folder / "data.npz", images=pictures(), ids=[f"picture {row}" for row in range(N)])
    return built(folder)


@pytest.fixture(scope="module")
def whole(images: Path) -> SelftestResult:
    """Three kinds, in the folder that is chosen where none is named."""
    before = content(images)
    result = outcome(images, kinds=KINDS)
    assert before.items() <= content(images).items(), "the store stays as it was"
    return result


@pytest.fixture(scope="module")
def noise(whole: SelftestResult) -> KindResult:
    return next(kind for kind in whole.kinds if kind.kind == "noise")


@pytest.fixture
def done(images: Path, whole: SelftestResult, tmp_path: Path) -> Path:
    """A folder in which `whole` is done."""
    return shutil.copytree(images / "selftest", tmp_path / "done")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clouds of points, a class each."""
    folder, rng = tmp_path_factory.mktemp("table"), np.random.default_rng(0)
    labels = np.arange(N) % 3
    points = (np.eye(3, 5)[labels] * 4 + rng.normal(size=(N, 5))).astype(np.float32)
    np.savez(folder / "data.npz", x=points, y=labels)
    return built(folder, "classifier", parameters=("all",), learning_rate=0.01, epochs=10)


def content(folder: Path) -> dict[str, str]:
    """Every file by its hash."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_of_the_builds_nothing_stays(images: Path, whole: SelftestResult) -> None:
    assert tuple(kind.kind for kind in whole.kinds) == KINDS
    records = {f"trials/{name}-0.{end}" for name in KINDS for end in ("json", "npz")}
    assert set(content(images / "selftest")) == {*records, "sanity.json"}


def test_what_stands_out_is_found_and_every_figure_is_there(whole: SelftestResult, noise: KindResult) -> None:
    assert (noise.n_examples, noise.n_planted) == (N, 6)
    assert noise.figures["combined"].roc_auc.value > 0.9
    rows = {row["signal"]: row for row in whole.table().to_pylist() if row["kind"] == "noise"}
    assert {"combined", "leverage", *BASELINES} <= set(rows)
    assert rows["loss_spread"]["roc_auc"] == 0.5, "with one checkpoint there is no spread: all scores are equal"
    for row in rows.values():
        for name in ("roc_auc", "average_precision", "mean_detection", "found_in_first_10_percent"):
            assert 0 <= row[f"{name}_low"] <= row[f"{name}_high"] <= 1
            assert 0 <= row[name] <= 1
    assert {name for name, row in rows.items() if row["is_baseline"]} == BASELINES


def test_signals_are_in_order_of_what_they_find_after_the_score(whole: SelftestResult) -> None:
    assert whole.signals[0] == "combined"
    means = [whole.overall(name).roc_auc.value for name in whole.signals[1:]]
    assert means == sorted(means, reverse=True)


def test_planted_examples_are_shown_from_both_ends_of_their_ranking(noise: KindResult) -> None:
    ranks = [one.rank for one in noise.found] + [one.rank for one in reversed(noise.missed)]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == 6
    originals = {f"picture {row}": picture for row, picture in enumerate(pictures())}
    for one in (*noise.found, *noise.missed):
        assert one.example.shape == (1, 8, 8)
        assert not np.array_equal(one.example[0], originals[one.id])


def test_the_same_seed_gives_the_same_figures(images: Path, whole: SelftestResult, tmp_path: Path) -> None:
    again = outcome(images, kinds="noise", work=tmp_path)
    first = {row["signal"]: row for row in whole.table().to_pylist() if row["kind"] == "noise"}
    assert {row["signal"]: row for row in again.table().to_pylist()} == first


def test_a_finished_self_test_is_told_again_in_the_same_words(
    images: Path, whole: SelftestResult, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trials_run, "build", None)
    monkeypatch.setattr(trials_run, "sanity_checks", None)
    listener = Listener()
    again, first = outcome(images, listener, kinds=KINDS, work=done).to_json(), whole.to_json()
    assert json.dumps(again, allow_nan=False) == json.dumps(first)
    assert "3 of 3 trials were done before: nothing is left to do." in listener.said


def test_an_interrupted_self_test_goes_on_with_what_is_missing(
    images: Path, whole: SelftestResult, done: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (done / "trials" / "inverted-0.json").unlink()
    begun: list[Path] = []

    def interrupted(settings: BuildSettings, *others: Any) -> BuildResult:
        begun.append(Path(settings.store))
        if len(begun) == 1:
            train_checkpoints(settings)
            raise KeyboardInterrupt
        assert is_trained(settings), "what was begun is gone on with"
        return build(settings, *others)

    monkeypatch.setattr(trials_run, "build", interrupted)
    with pytest.raises(KeyboardInterrupt):
        outcome(images, kinds=KINDS, work=done)
    found = outcome(images, kinds=KINDS, work=done)
    assert len(set(begun)) == 1
    assert not begun[0].exists()
    assert found.table() == whole.table()


def test_progress_ends_where_it_said(images: Path, tmp_path: Path) -> None:
    listener = Listener()
    result = outcome(images, listener, kinds="rotated", sample=20, repeats=2, work=tmp_path)
    assert listener.done == listener.total
    assert (result.kinds[0].repeats, len(result.kinds[0].over_combined["loss"])) == (2, 2)


def test_other_settings_begin_anew_and_say_so(images: Path, done: Path) -> None:
    listener, stale = Listener(), done / "unfinished" / "noise-0-0123456789ab"
    stale.mkdir(parents=True)
    result = outcome(images, listener, kinds="noise", work=done, share=0.1)
    assert result.kinds[0].n_planted == 10
    assert any("share was 0.06, now 0.1" in sentence for sentence in listener.said)
    assert not stale.exists()


def test_a_damaged_record_is_made_anew(images: Path, whole: SelftestResult, done: Path) -> None:
    (done / "trials" / "noise-0.npz").write_bytes(b"half of")
    assert outcome(images, kinds=KINDS, work=done).table() == whole.table()


def test_wrong_labels_are_planted_where_the_model_learns_from_labels(table: Path, tmp_path: Path) -> None:
    result = outcome(table, kinds="scaled,mislabelled", work=tmp_path)
    by_kind = {kind.kind: kind for kind in result.kinds}
    assert by_kind["mislabelled"].figures["combined"].roc_auc.value > 0.9
    assert [advice.group for advice in result.advice] == ["labels", "examples"]
    assert all(one.was not in (None, one.label) for one in by_kind["mislabelled"].found)
    assert all(one.was is None for one in by_kind["scaled"].found)
    assert {row["of"] for row in result.table().to_pylist() if row["kind"] == "scaled"} == {"examples"}
    assert result.sanity is not None
    assert result.sanity.similarity["cosine"].top > 0.9


def test_repeats_are_other_samples_and_every_class_is_in_each(table: Path) -> None:
    store = Store.open(table)
    source = reopen(store.manifest.provenance["source"])
    first, second = (drawn(store, source, 3, [0, repeat]) for repeat in range(2))
    assert first.ids != second.ids
    for sample in (first, second):
        assert sample.labels is not None
        assert set(sample.labels) == {0, 1, 2}
        assert sample.ids == store.examples_at(sample.rows).column("id").to_pylist()
    with pytest.raises(QueryError, match="3 classes, more than --sample 2"):
        drawn(store, source, 2, [0])


def test_all_kinds_that_fit_are_planted_into_texts_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = rng.integers(0, 4, (N, 8)) + 4 * rng.integers(0, 3, (N, 1))
    np.savez(tmp_path / "data.npz", x=texts)
    result = outcome(built(tmp_path, BAG, learning_rate=0.1), sample=40)
    by_kind = {kind.kind: kind for kind in result.kinds}
    assert list(by_kind) == ["shuffled_tokens", "noise", "repeated", "duplicates"]
    assert set(result.left_out) == {"foreign", "mislabelled", "mislabelled_alike"}
    noise, shuffled = by_kind["noise"], by_kind["shuffled_tokens"]
    assert noise.figures["loss"].roc_auc.value > 0.8
    assert shuffled.figures["loss"].roc_auc.value == pytest.approx(0.5, abs=0.25), "order is nothing to this model"


@pytest.mark.parametrize(
    ("labels", "reason"),
    [(np.arange(N) % 2, "does not learn from labels"), (np.zeros(N, int), "all labels are of one class")],
)
def test_why_no_label_is_made_wrong_is_said(tmp_path: Path, labels: np.ndarray[Any, Any], reason: str) -> None:
    np.savez(tmp_path / "data.npz", images=pictures(), y=labels)
    with pytest.raises(QueryError, match=f"There is nothing to plant. mislabelled: .*{reason}"):
        outcome(built(tmp_path, epochs=1), kinds="mislabelled")


def test_given_checkpoints_are_used_and_nothing_is_trained(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, file in enumerate(sorted((images / "checkpoints").glob("*.safetensors"))):
        (tmp_path / f"weights-{number}.safetensors").write_bytes(file.read_bytes())
    np.savez(tmp_path / "data.npz", images=pictures())
    store = built(tmp_path, checkpoints=(str(tmp_path / "weights-*.safetensors"),))
    monkeypatch.setattr("gradstore_pipelines.build_store.train", None)
    result = outcome(store, kinds="noise")
    assert result.setting.epochs is None
    assert "the store's own checkpoints were used" in result.to_json()["words"][0]
    (tmp_path / "weights-0.safetensors").write_bytes(b"others")
    with pytest.raises(CheckpointError, match=r"weights-0\.safetensors is gone, or not the one"):
        outcome(store, kinds="noise", seed=1)


@pytest.mark.parametrize("given", [False, True], ids=["trained", "given"])
def test_the_store_s_own_data_give_the_store_again(images: Path, tmp_path: Path, given: bool) -> None:
    """What a self-test builds by is what the store was built by: the very bytes, where the data are the same."""
    store = Store.open(of_given_weights(tmp_path) if given else images)
    data = Path(store.manifest.provenance["source"]["path"])
    settings = settings_like(store, data, tmp_path / "again", n_examples=N, device="cpu", repeat=0)
    build(settings)
    assert Store.open(tmp_path / "again").content_fingerprint() == store.content_fingerprint()


def of_given_weights(folder: Path) -> Path:
    """Of two checkpoints, and a third that was appended and whose name comes first."""
    np.savez(folder / "data.npz", images=pictures())
    shapes = {"encoder.1.weight": (5, 64), "encoder.1.bias": (5,), "decoder.weight": (64, 5), "decoder.bias": (64,)}
    torch.manual_seed(0)
    for name, rate in {"a": 0.5, "b": 0.25, "0": 0.125}.items():
        weights = {parameter: torch.rand(shape) for parameter, shape in shapes.items()}
        torch.save({"state_dict": weights, "lr": rate}, folder / f"{name}.pt")
    store = built(folder, checkpoints=(str(folder / "[ab].pt"),), draws=2, per_layer_norms=True)
    append(AppendSettings(store=store, checkpoints=(str(folder / "0.pt"),), device="cpu"))
    return store


def test_a_small_sample_is_trained_for_as_many_steps_as_the_store_but_not_for_more() -> None:
    training = {"epochs": 10, "train_batch_size": 100}
    assert epochs_on(training, 100_000, 2_000) == 60  # 1,200 steps
    assert epochs_on(training, 2_000, 1_000) == 20  # the store's own 200
    assert epochs_on(training, 100_000, 50_000) == 10


def test_forgotten_examples_are_in_no_sample(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=pictures(60))
    store = built(tmp_path, epochs=1)
    Store.open(store).forget([str(row) for row in range(40)])
    listener = Listener()
    result = outcome(store, listener, kinds="noise")
    assert result.kinds[0].n_examples == 20
    assert min(int(one.id) for one in (*result.kinds[0].found, *result.kinds[0].missed)) >= 40
    assert "There are 20 examples, fewer than --sample 2000: all are taken." in listener.said
    Store.open(store).forget([str(row) for row in range(40, 55)])
    with pytest.raises(QueryError, match="has 5 examples; a self-test needs 10 or more"):
        outcome(store, kinds="noise")


def test_foreign_examples_come_from_other_data(images: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "dark.npy", np.zeros((9, 8, 8), np.uint8))
    np.save(tmp_path / "small.npy", np.zeros((9, 4, 4), np.uint8))
    result = outcome(images, kinds="foreign", foreign=tmp_path / "dark.npy", work=tmp_path / "work")
    assert not any(one.example.any() for one in result.kinds[0].found)
    with pytest.raises(SourceError, match=r"uint8 examples of shape \[1, 4, 4\]; those of the store are uint8"):
        outcome(images, kinds="foreign", foreign=tmp_path / "small.npy", work=tmp_path / "work")


def test_constant_data_are_tested_as_far_as_they_can_be(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=np.full((30, 8, 8), 7, np.uint8))
    result = outcome(built(tmp_path, epochs=1), kinds="rotated,noise,reversed")
    assert "'reversed' needs series" in result.left_out["reversed"]
    assert [kind.kind for kind in result.kinds] == ["noise"]
    assert "'rotated' changes only 0 of 30 examples" in result.left_out["rotated"]
    assert "Only 2 examples were bad at a time" in " ".join(result.to_json()["words"])


def test_a_signal_without_numbers_is_left_out_and_the_others_are_judged(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Computed.values

    def values(self: Computed, name: str) -> Values:
        return np.full(N, np.nan) if name in ("near_duplicate", "forgetting") else plain(self, name)

    monkeypatch.setattr(Computed, "values", values)
    result = outcome(images, kinds="noise", work=tmp_path)
    assert set(result.undefined) == {"near_duplicate", "forgetting", "combined"}
    assert "it is NaN or infinite for 96 of 96 examples" in result.undefined["forgetting"]
    assert "near_duplicate" in result.undefined["combined"]
    (advice,) = result.advice
    assert advice.combined is None
    assert advice.signal == advice.best == result.signals[0]
    assert json.dumps(result.to_json(), allow_nan=False)


def test_data_that_are_not_the_store_s_any_more_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=pictures(30))
    store = built(tmp_path, epochs=1)
    np.savez(tmp_path / "data.npz", images=pictures(30), ids=[f"new {row}" for row in range(30)])
    with pytest.raises(SourceError, match="have other ids"):
        outcome(store)
    np.savez(tmp_path / "data.npz", images=pictures(29))
    with pytest.raises(SourceError, match="are 29 examples"):
        outcome(store)
    with pytest.raises(StoreNotFoundError):
        outcome(tmp_path / "nothing")


@pytest.mark.parametrize(
    "values",
    [
        *({"sample": 9}, {"share": 0}, {"share": 0.6}, {"share": float("nan")}, {"repeats": 0}, {"seed": -1}),
        {"kinds": "upside_down"},
    ],
)
def test_settings_out_of_range_are_refused_by_name(images: Path, values: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=f"--{next(iter(values))} "):
        outcome(images, **values)
