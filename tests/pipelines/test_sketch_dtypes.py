"""`--sketch-dtype`: what is kept of a sketch, what that costs, and who sees the difference; and stored predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import gradstore
from gradstore.errors import QueryError, StoreMismatchError, TaskError
from gradstore.store import Store, verify
from gradstore_pipelines.build_store import build
from gradstore_pipelines.settings import BuildSettings

N = 200


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "digits.npz"
    digits = load_digits()
    np.savez(path, images=(digits.images[:N] * 15).astype(np.uint8), labels=digits.target[:N])
    return path


def settings(data: Path, store: Path, **changes: Any) -> BuildSettings:
    values: dict[str, Any] = {"model": "classifier", "epochs": 1, "n_checkpoints": 2, "sketch_dim": 64} | changes
    return BuildSettings(source=data, store=store, parameters=("all",), **values)


@pytest.fixture(scope="module")
def stores(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Store]:
    folder = tmp_path_factory.mktemp("stores")
    for dtype in ("float16", "float32", "int8"):
        build(settings(data, folder / dtype, sketch_dtype=dtype))
    return {dtype: Store.open(folder / dtype) for dtype in ("float16", "float32", "int8")}


def test_dtypes_round_the_same_sketches(stores: dict[str, Store]) -> None:
    exact = stores["float32"].precise_sketches(1, 0, N)
    # To half the spacing of float16; through float32 a tie may fall to the other side.
    np.testing.assert_allclose(stores["float16"].unit_sketches(1, 0, N), exact, rtol=2.0**-11 * 1.001, atol=2.0**-24)
    np.testing.assert_array_equal(stores["float32"].unit_sketches(1, 0, N), exact.astype(np.float16))
    coarse = stores["int8"].precise_sketches(1, 0, N)
    half_a_step = np.abs(exact).max(axis=1, keepdims=True) / 254
    assert (np.abs(coarse - exact) <= half_a_step * (1 + 1e-5)).all()
    for store in stores.values():
        np.testing.assert_array_equal(store.norms(1), stores["float16"].norms(1))
        assert verify(store).ok


def test_bytes_are_those_of_the_dtype(stores: dict[str, Store]) -> None:
    files = {dtype: list((store.folder / "sketches").glob("c.*")) for dtype, store in stores.items()}
    n_rows = stores["int8"].manifest.n_shards * stores["int8"].manifest.shard_rows * 2
    sizes = {dtype: sum(file.stat().st_size for file in found) / n_rows for dtype, found in files.items()}
    assert sizes == {"float16": 128, "float32": 256, "int8": 64}


def test_int8_finds_nearly_the_same_proponents(stores: dict[str, Store]) -> None:
    ids = [str(row) for row in range(0, N, 5)]
    found = {dtype: gradstore.open(store.folder).search(ids, 10).indices for dtype, store in stores.items()}
    shared = [len({*a} & {*b}) / 10 for a, b in zip(found["int8"], found["float32"], strict=True)]
    assert np.mean(shared) > 0.9
    shared = [len({*a} & {*b}) / 10 for a, b in zip(found["float16"], found["float32"], strict=True)]
    assert np.mean(shared) > 0.99  # search reads float16


def test_leverage_reads_what_is_stored(stores: dict[str, Store]) -> None:
    ranks = {dtype: gradstore.open(store.folder).rank(by="leverage") for dtype, store in stores.items()}
    values = {dtype: np.argsort(np.array(table["id"].to_pylist(), int)) for dtype, table in ranks.items()}
    leverage = {d: ranks[d]["leverage"].to_numpy()[values[d]] for d in ranks}
    assert not np.array_equal(leverage["float16"], leverage["float32"])
    np.testing.assert_allclose(leverage["float16"], leverage["float32"], rtol=0.02)
    np.testing.assert_allclose(leverage["int8"], leverage["float32"], rtol=0.3)


def test_int8_bytes_do_not_depend_on_the_batch(data: Path, stores: dict[str, Store], tmp_path: Path) -> None:
    build(settings(data, tmp_path / "s", sketch_dtype="int8", batch_size=1))
    assert Store.open(tmp_path / "s").content_fingerprint() == stores["int8"].content_fingerprint()


def test_a_store_of_another_dtype_is_refused(data: Path, stores: dict[str, Store]) -> None:
    with pytest.raises(StoreMismatchError, match='sketch_dtype: store has no such setting; this run asks for "int8"'):
        build(settings(data, stores["float16"].folder, sketch_dtype="int8"))


def test_a_classifier_keeps_its_predictions(data: Path, stores: dict[str, Store]) -> None:
    opened = gradstore.open(stores["float16"].folder)
    assert opened.store.keeps("predictions")
    images = (load_digits().images[:N, None] * 15).astype(np.uint8)
    opened.sketcher.load(1)
    with torch.no_grad():
        logits = opened.sketcher.engine.model(torch.from_numpy(images).float() / 255)
    expected = logits.log_softmax(dim=1).numpy()
    # float16 rounds by 2^-11 of a value, below its smallest normal number by a fixed step.
    np.testing.assert_allclose(opened.store.predictions(1, 0, N), expected, rtol=2.0**-10, atol=1e-5)


def test_a_model_without_classes_keeps_none(data: Path, tmp_path: Path) -> None:
    build(settings(data, tmp_path / "s", model="autoencoder"))
    assert not Store.open(tmp_path / "s").keeps("predictions")
    with pytest.raises(QueryError, match="keeps no predictions"):
        Store.open(tmp_path / "s").predictions(0, 0, 1)


@pytest.mark.parametrize(
    ("returned", "found"), [("model(batch.inputs).sum(1)", r"\(4,\)"), ("'cat'", "str"), ("1 / 0", "ZeroDivisionError")]
)
def test_predictions_of_another_shape_are_refused_before_anything_is_written(
    data: Path, tmp_path: Path, returned: str, found: str
) -> None:
    (tmp_path / "bad.py").write_text(
        "from torch import nn\nfrom gradstore import Task\n"
        "class Bad(Task):\n"
        "    def build(self):\n        return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))\n"
        "    def latent(self, model, batch):\n        return model(batch.inputs)\n"
        "    def loss(self, model, batch, noise):\n        return model(batch.inputs).square().sum(1)\n"
        f"    def predict(self, model, batch):\n        return {returned}\n"
    )
    with pytest.raises(TaskError, match=rf"Bad\.predict r.*{found}"):
        build(settings(data, tmp_path / "s", model=f"{tmp_path / 'bad.py'}:Bad"))
    assert not (tmp_path / "s").exists()
