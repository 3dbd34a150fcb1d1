"""Several sets of parameters, norms by layer and the variance over draws from one pass, against plain autograd and
against builds of one set each.
"""

from __future__ import annotations

import dataclasses
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import gradstore
from gradstore.errors import ParametersError, QueryError
from gradstore.models.checkpoints import load_checkpoint
from gradstore.models.vae import VAE
from gradstore.store import Store, verify
from gradstore.store.layout import arrays
from gradstore.task import Batch, Noise, example_keys
from gradstore.testing.store_kit import dying_after
from gradstore_pipelines.build_store import build
from gradstore_pipelines.estimate import estimate
from gradstore_pipelines.preparation import prepare, request
from gradstore_pipelines.progress import Silent
from gradstore_pipelines.settings import BuildSettings, SettingsError

HERE = Path(__file__).parent
TOY = f"{HERE / 'toy_task.py'}:Toy"
OLD = HERE.parent / "old_stores"
N, DRAWS = 130, 3
SETS = ("encoder", "decoder", "all")
Images = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def images() -> Images:
    found: Images = (load_digits().images[:N] * 15).astype(np.uint8)
    return found


@pytest.fixture(scope="module")
def data(images: Images, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "digits.npy"
    np.save(path, images)
    return path


def settings(data: Path, store: Path, **changes: Any) -> BuildSettings:
    values: dict[str, Any] = {
        "model": TOY,
        "epochs": 1,
        "n_checkpoints": 2,
        "sketch_dim": 32,
        "draws": DRAWS,
        "parameters": SETS,
        "per_layer_norms": True,
    }
    return BuildSettings(source=data, store=store, **(values | changes))


@pytest.fixture(scope="module")
def built(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sets in one pass."""
    store = tmp_path_factory.mktemp("built") / "store"
    build(settings(data, store))
    return store


def gradients_by_draw(store: Store, images: Images, checkpoint: int) -> dict[str, torch.Tensor]:
    """The oracle: [draw, example, *shape] gradients of every parameter by plain autograd, one example at a time."""
    sketcher = gradstore.open(store.folder).sketcher
    found, plan = sketcher.plan.checkpoints[checkpoint], sketcher.plan
    task, model = sketcher.engine.task, sketcher.engine.task.build().eval()
    load_checkpoint(model, dataclasses.replace(found, path=store.folder / found.path))
    model.double()
    inputs = torch.from_numpy(images)[:, None].double() / 255
    keys, named = example_keys(str(row) for row in range(len(images))), dict(model.named_parameters())
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in named}
    for draw in range(DRAWS):
        for row in range(len(images)):
            one = Batch(inputs[row : row + 1], None, keys[row : row + 1])
            loss = task.loss(model, one, Noise(one.keys, plan.seed, draw)).sum()
            for name, gradient in zip(named, torch.autograd.grad(loss, list(named.values())), strict=True):
                rows[name].append(gradient)
    return {name: torch.stack(found).reshape(DRAWS, len(images), *found[0].shape) for name, found in rows.items()}


def test_norms_layers_and_draws_are_those_of_plain_autograd(built: Path, images: Images) -> None:
    store, few = Store.open(built), images[:20]
    by_draw = gradients_by_draw(store, few, checkpoint=1)
    for name in SETS:
        view = store.of_set(name)
        tracked = {p: g.flatten(2) for p, g in by_draw.items() if name == "all" or p.startswith(name)}
        whole = torch.cat(list(tracked.values()), dim=2)
        np.testing.assert_allclose(view.norms(1)[:20], whole.mean(0).norm(dim=1), rtol=1e-5)
        np.testing.assert_allclose(view.draw_norms(1)[:20], whole.norm(dim=2).square().mean(0).sqrt(), rtol=1e-5)
        by_layer = [
            torch.cat([g for p, g in tracked.items() if p.rpartition(".")[0] == layer], dim=2).mean(0).norm(dim=1)
            for layer in view.layers
        ]
        np.testing.assert_allclose(view.layer_norms(1, 0, 20), torch.stack(by_layer, dim=1), rtol=1e-5)
    assert store.of_set("all").layers == ("encoder.1", "decoder")


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_a_set_in_a_joint_pass_has_the_bytes_of_that_set_built_alone(
    data: Path, built: Path, tmp_path: Path, name: str
) -> None:
    build(settings(data, tmp_path / "alone", parameters=name))
    alone, joint = Store.open(tmp_path / "alone"), Store.open(built).of_set(name)
    for array in arrays(alone.manifest):
        suffix = joint.set_suffix if array.kind.of_set else ""
        for file in (alone.folder / array.name).glob("c.*"):
            assert (built / f"{array.name}{suffix}" / file.name).read_bytes() == file.read_bytes(), array.name


def test_a_set_that_holds_others_differs_from_itself_built_alone_by_rounding_only(
    data: Path, built: Path, tmp_path: Path
) -> None:
    """Its sketch is the sum of the others': another order of float32 sums, then one rounding to float16."""
    build(settings(data, tmp_path / "alone", parameters="all"))
    alone, joint = Store.open(tmp_path / "alone"), Store.open(built).of_set("all")
    for checkpoint in range(2):
        np.testing.assert_allclose(joint.norms(checkpoint), alone.norms(checkpoint), rtol=1e-6)
        found, expected = (s.unit_sketches(checkpoint, 0, N).astype(np.float32) for s in (joint, alone))
        np.testing.assert_allclose(found, expected, atol=float(np.finfo(np.float16).eps))


def test_a_joint_pass_that_is_killed_goes_on_to_the_same_bytes(data: Path, built: Path, tmp_path: Path) -> None:
    """Each run dies a few files later than the one before: between shards, and between the files of one."""
    for n_files in (0, 7, 15, 20, 33):
        with dying_after(n_files), pytest.raises(KeyboardInterrupt):
            build(settings(data, tmp_path / "store"))
    assert build(settings(data, tmp_path / "store")).sketched_shards > 0
    assert content(tmp_path / "store") == content(built)
    assert verify(Store.open(tmp_path / "store")).ok


def test_the_estimate_counts_the_files_of_every_set(data: Path, built: Path, tmp_path: Path) -> None:
    guess = estimate(settings(data, tmp_path / "store"))
    made = [file for file in built.rglob("*") if file.is_file() and not file.name.startswith("signals")]
    in_all = sum(file.stat().st_size for file in made)
    assert guess.n_files == len(made)
    assert guess.n_bytes == pytest.approx(in_all, rel=0.02)


def test_more_or_other_sets_are_another_store(data: Path, built: Path) -> None:
    for changes in ({"parameters": ("encoder", "decoder")}, {"per_layer_norms": False}, {"draws": 2}):
        with pytest.raises(gradstore.errors.StoreMismatchError, match="begun by other settings"):
            build(settings(data, built, **changes))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (("encoder", "head.*"), r"'head\.\*' names none of the model's 4 parameters"),
        (("encoder", "all", "encoder.*"), r"'encoder' and --parameters 'encoder\.\*' name the same 2 parameters"),
    ],
)
def test_sets_that_cannot_be_are_refused_before_anything_is_written(
    data: Path, tmp_path: Path, parameters: tuple[str, ...], message: str
) -> None:
    for ask in (build, estimate):
        with pytest.raises(ParametersError, match=message):
            ask(settings(data, tmp_path / "store", parameters=parameters))
    assert not (tmp_path / "store").exists()


def test_the_same_set_twice_or_none_is_refused(data: Path) -> None:
    with pytest.raises(SettingsError, match="'all' is given more than once"):
        settings(data, data, parameters=("all", "encoder", "all"))
    with pytest.raises(SettingsError, match="names nothing"):
        settings(data, data, parameters=())


def test_what_format_1_began_is_asked_for_in_its_own_words(tmp_path: Path) -> None:
    """Otherwise a build that an older gradstore began could not be finished."""
    np.save(tmp_path / "rows.npy", runpy.run_path(str(OLD / "make.py"))["rows"]())
    asked = BuildSettings(source=tmp_path / "rows.npy", store=tmp_path / "s", sketch_dim=16, epochs=4, n_checkpoints=2)
    prepared = prepare(asked, Silent())
    small = VAE(example_shape=(6,), d_latent=2, width=8, likelihood="gaussian")
    found = request(asked, dataclasses.replace(prepared, task=small))
    assert found == json.loads((OLD / "v1" / "build" / "request.json").read_text())


def test_a_set_answers_from_its_own_gradients(built: Path, images: Images) -> None:
    opened = gradstore.open(built, parameters="decoder")
    rates, view = opened.store.learning_rates, Store.open(built).of_set("decoder")
    rows = [view.unit_sketches(t, 0, N).astype(np.float64) * view.norms(t)[:, None] for t in range(2)]
    influence = sum(eta * g @ g[7] for eta, g in zip(rates, rows, strict=True))
    table = opened.proponents("7", k=N, include_self=True)
    found = view.row_of([str(name) for name in table.column("id").to_pylist()])
    np.testing.assert_allclose(table.column("score").to_numpy(), np.asarray(influence)[found], rtol=1e-4, atol=1e-6)
    batch = Batch(opened.as_batch(images[7:8, None]).inputs, None, example_keys(["7"]))
    again = opened.proponents(batch, k=5)
    # The query is float32 here and float16 there: 2^-11 of a score's larger terms.
    largest = float(np.abs(influence).max())
    np.testing.assert_allclose(again["score"].to_numpy(), table["score"].to_numpy()[:5], atol=largest * 2.0**-9)


def test_signals_and_indexes_of_sets_are_kept_apart(data: Path, tmp_path: Path) -> None:
    build(settings(data, tmp_path / "store"))
    first, second = gradstore.open(tmp_path / "store"), gradstore.open(tmp_path / "store", parameters="decoder")
    for opened in (first, second, first):
        table = opened.rank(signals=["self_influence"], by="self_influence").sort_by("id")
        norms = [opened.store.norms(t).astype(np.float64) for t in range(2)]
        expected = sum(eta * n**2 for eta, n in zip(opened.store.learning_rates, norms, strict=True))
        rows = opened.store.row_of([str(name) for name in table.column("id").to_pylist()])
        np.testing.assert_allclose(table["self_influence"].to_numpy(), np.asarray(expected)[rows], rtol=1e-6)
    assert {file.name for file in (tmp_path / "store").glob("signals*")} == {"signals.parquet", "signals-1.parquet"}
    assert second.build_index().name == "rabitq-none-1.faiss"
    assert (first.has_index(), second.has_index()) == (False, True)
    with pytest.raises(gradstore.errors.IndexNotFoundError) as caught:
        gradstore.open(tmp_path / "store", parameters="all").proponents("7", index="flat")
    assert "--parameters 'all'" in caught.value.__notes__[0]


def test_variance_over_draws_is_a_signal_where_it_is_kept(built: Path, images: Images) -> None:
    opened = gradstore.open(built)
    table = opened.rank(by="draw_variance")
    assert {"draw_variance", "leverage"} <= set(table.column_names)
    assert "its gradient depends much on the noise" in table["reason"][0].as_py()
    by_draw = [gradients_by_draw(opened.store, images[:6], checkpoint=t) for t in range(2)]
    whole = [torch.cat([g.flatten(2) for p, g in one.items() if p.startswith("encoder")], dim=2) for one in by_draw]
    expected = torch.stack([w.var(dim=0, correction=0).sum(dim=1) for w in whole]).mean(0)
    rows = opened.store.row_of([str(name) for name in table["id"].to_pylist()])
    found = table["draw_variance"].to_numpy()[np.argsort(rows)]
    np.testing.assert_allclose(found[:6], expected, rtol=1e-4)


def test_an_unknown_set_lists_those_there_are(built: Path) -> None:
    with pytest.raises(QueryError, match="gradients of 'encoder', 'decoder', 'all', not of 'head'"):
        gradstore.open(built, parameters="head")


def test_layer_norms_are_read_from_an_opened_store(built: Path) -> None:
    opened = gradstore.open(built, parameters="all")
    assert opened.layer_norms(0).shape == (N, len(opened.layers)) == (N, 2)
    np.testing.assert_array_equal(opened.layer_norms(0, 5, 9), opened.layer_norms(0)[5:9])


def content(store: Path) -> dict[str, bytes]:
    return {str(f.relative_to(store)): f.read_bytes() for f in sorted(store.rglob("*")) if f.is_file()}
