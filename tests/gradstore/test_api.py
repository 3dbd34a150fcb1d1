"""`gradstore.open(path)`: what it answers equals what the definitions say, from the model itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

import gradstore
from gradstore.errors import (
    IndexNotFoundError,
    QueryError,
    StoreCorruptError,
    StoreIncompleteError,
    StoreNotFoundError,
)
from gradstore.models.checkpoints import load_checkpoint
from gradstore.sketcher import SketchPlan
from gradstore.store import Store
from gradstore.task import Batch, example_keys
from gradstore.testing.toys import autograd_gradients
from gradstore_pipelines.build_store import build
from gradstore_pipelines.settings import BuildSettings

N = 100


@pytest.fixture(scope="module")
def images() -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = (load_digits().images[:N] * 15).astype(np.uint8)
    return found


@pytest.fixture(scope="module")
def opened(images: np.ndarray[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> gradstore.GradientStore:
    """The default VAE on digits, sketches of the default length."""
    folder = tmp_path_factory.mktemp("api")
    np.save(folder / "digits.npy", images)
    settings = BuildSettings(source=folder / "digits.npy", store=folder / "store", epochs=20)
    build(settings)
    return gradstore.open(folder / "store")


@pytest.fixture(scope="module")
def exact(opened: gradstore.GradientStore, images: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[checkpoint, example, parameter] encoder gradients by plain autograd: no hook, no sketch."""
    sketcher = opened.sketcher
    plan = SketchPlan.from_json(opened.store.manifest.settings["plan"])
    batch = Batch(torch.from_numpy(images)[:, None] / 255, None, example_keys(str(row) for row in range(N)))
    by_checkpoint = []
    for checkpoint in plan.checkpoints:
        model = sketcher.engine.task.build().eval()
        load_checkpoint(model, type(checkpoint)(opened.store.folder / checkpoint.path, checkpoint.learning_rate))
        grads = autograd_gradients(sketcher.engine.task, model, batch, plan.seed)
        tracked = [g.flatten(1) for name, g in grads.items() if name.startswith("encoder.")]
        by_checkpoint.append(torch.cat(tracked, dim=1).numpy())
    return np.stack(by_checkpoint)


def influence(opened: gradstore.GradientStore, exact: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    rates = opened.store.learning_rates
    return np.asarray(sum(eta * g @ g.T for eta, g in zip(rates, exact.astype(np.float64), strict=True)))


def test_norms_are_exact(opened: gradstore.GradientStore, exact: np.ndarray[Any, Any]) -> None:
    for checkpoint, grads in enumerate(exact):
        norms = np.linalg.norm(grads.astype(np.float64), axis=1)
        np.testing.assert_allclose(opened.store.norms(checkpoint), norms, rtol=1e-5)


def test_self_influence_is_that_of_exact_gradients(
    opened: gradstore.GradientStore, exact: np.ndarray[Any, Any]
) -> None:
    table = opened.rank(signals=["self_influence"], by="self_influence")
    rows = opened.store.row_of([str(name) for name in table.column("id").to_pylist()])
    expected = np.diag(influence(opened, exact))[rows]
    np.testing.assert_allclose(table.column("self_influence").to_numpy(), expected, rtol=1e-5)


def test_sketched_influence_keeps_order_and_size_of_exact_influence(
    opened: gradstore.GradientStore, exact: np.ndarray[Any, Any]
) -> None:
    """K = 1024 on the default VAE: Pearson >= .99 over all pairs and recall@10 >= .85 of exact inner products."""
    true = influence(opened, exact)
    every = opened.search([str(row) for row in range(N)], N, include_self=True)
    sketched = np.empty((N, N))
    np.put_along_axis(sketched, every.indices, every.scores.astype(np.float64), axis=1)
    off_diagonal = ~np.eye(N, dtype=bool)
    assert np.corrcoef(true[off_diagonal], sketched[off_diagonal])[0, 1] >= 0.99
    best_true, best_found = (np.argsort(-values, axis=1)[:, :10] for values in (true, sketched))
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(best_true, best_found, strict=True)])
    assert recall >= 0.85


def test_opponents_raise_the_query_loss(opened: gradstore.GradientStore, exact: np.ndarray[Any, Any]) -> None:
    """One small gradient step on a strong opponent raises the query's loss, on a strong proponent lowers it."""
    task, plan = opened.sketcher.engine.task, opened.sketcher.plan
    last, query = len(plan.checkpoints) - 1, 5
    others = np.delete(np.arange(N), query)
    products = exact[last] @ exact[last][query]
    proponent, opponent = others[products[others].argmax()], others[products[others].argmin()]
    assert products[opponent] < 0
    for row, sign in ((proponent, -1), (opponent, 1)):
        assert np.sign(loss_change(opened, task, exact[last][row], query)) == sign


def loss_change(opened: gradstore.GradientStore, task: Any, step: np.ndarray[Any, Any], query: int) -> float:
    """Change of the query's loss when the encoder takes a small step down `step`."""
    from gradstore.task import Noise

    checkpoint = opened.sketcher.plan.checkpoints[-1]
    model = task.build().double().eval()
    load_checkpoint(model, type(checkpoint)(opened.store.folder / checkpoint.path, checkpoint.learning_rate))
    image = torch.from_numpy((load_digits().images[query] * 15).astype(np.uint8))[None, None].double() / 255
    keys = example_keys([str(query)])
    with torch.no_grad():
        before = float(task.loss(model, Batch(image, None, keys), Noise(keys, opened.sketcher.plan.seed)))
        position = 0
        for name, parameter in model.named_parameters():
            if name.startswith("encoder."):
                size = parameter.numel()
                parameter -= 1e-7 * torch.from_numpy(step[position : position + size]).double().view_as(parameter)
                position += size
        after = float(task.loss(model, Batch(image, None, keys), Noise(keys, opened.sketcher.plan.seed)))
    return after - before


def test_raw_rows_find_themselves_as_ids_do(opened: gradstore.GradientStore, images: np.ndarray[Any, Any]) -> None:
    near = opened.neighbours(images[[4, 9], None], k=1)
    assert near.column("id").to_pylist() == ["4", "9"]
    assert near.column("distance").to_numpy().max() < 1e-4
    cosine = opened.proponents(images[[4, 9], None], k=1, normalise="cosine")
    assert cosine.column_names == ["query", "rank", "id", "label", "path", "score"]


def test_a_query_by_id_leaves_itself_out_unless_asked(opened: gradstore.GradientStore) -> None:
    without = opened.proponents(["7"], k=N - 1, normalise="cosine").column("id").to_pylist()
    assert "7" not in without
    with_self = opened.proponents(["7"], k=1, normalise="cosine", include_self=True)
    assert with_self.column("id").to_pylist() == ["7"]


def test_signals_are_kept_until_a_row_changes(opened: gradstore.GradientStore) -> None:
    opened.rank()
    told: list[tuple[int, int]] = []
    opened.rank(progress=lambda *done: told.append(done))
    assert told == []
    (opened.store.folder / "signals.parquet").unlink()
    opened.rank(signals=["gradient_distance"], by="loss", progress=lambda *done: told.append(done))
    assert told[-1] == (N * 5, N * 5)


def test_questions_that_make_no_sense_are_refused(
    opened: gradstore.GradientStore, images: np.ndarray[Any, Any], tmp_path: Path
) -> None:
    with pytest.raises(QueryError, match=r"shape \(1, 4, 4\)"):
        opened.proponents(images[:1, None, :4, :4])
    with pytest.raises(QueryError, match=f"k={N + 1} is larger than the store's {N} examples"):
        opened.proponents(images[:1, None], k=N + 1)
    with pytest.raises(QueryError, match="NaN"):
        opened.proponents(np.full((1, 1, 8, 8), np.nan, np.float32))
    with pytest.raises(IndexNotFoundError):
        opened.proponents(["3"], index="flat")
    with pytest.raises(StoreNotFoundError, match="gradstore build"):
        gradstore.open(tmp_path)


def test_one_id_is_a_question_too(opened: gradstore.GradientStore) -> None:
    expected = opened.proponents(["7"], k=3)
    assert opened.proponents("7", k=3) == opened.proponents(np.array(["7"]), k=3) == expected
    assert opened.neighbours("7", k=3) == opened.neighbours(["7"], k=3)


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        (3, "3 is of type int; an id is a string"),
        ([3], "3 is of type int; an id is a string"),
        (["3", torch.zeros(1, 8, 8)], "is of type Tensor; an id is a string.*raw rows as one numpy array"),
        ([], "There is no query"),
        (np.zeros((0, 1, 8, 8), np.uint8), "There is no query"),
        (np.array(3, np.uint8), r"A query has shape \(\)"),
    ],
)
def test_what_is_no_query_is_refused(opened: gradstore.GradientStore, queries: Any, message: str) -> None:
    for ask in (opened.proponents, opened.opponents, opened.search, opened.neighbours):
        with pytest.raises(QueryError, match=message):
            ask(queries)


@pytest.mark.parametrize("top", [0, -1])
def test_a_ranking_of_nothing_is_refused(opened: gradstore.GradientStore, top: int) -> None:
    with pytest.raises(QueryError, match=f"top={top} shows nothing"):
        opened.rank(by="loss", top=top)


def test_a_signal_that_the_store_does_not_keep_says_how_to_get_it(opened: gradstore.GradientStore) -> None:
    assert "draw_variance" not in opened.rank(top=1).column_names
    with pytest.raises(QueryError, match="--draws 2"):
        opened.rank(by="draw_variance")


def test_latents_of_queries_are_those_that_were_stored(
    opened: gradstore.GradientStore, images: np.ndarray[Any, Any]
) -> None:
    found = opened.sketcher.latents(1, opened.as_batch(images[:70, None]))
    np.testing.assert_array_equal(found, opened.store.latents(1, 0, 70))


def test_damaged_files_are_named_or_made_again(opened: gradstore.GradientStore, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(opened.store.folder, tmp_path / "copy")
    damaged = gradstore.open(tmp_path / "copy")
    expected = damaged.rank(by="loss")
    kept = tmp_path / "copy" / "signals.parquet"
    for spoilt in (b"", kept.read_bytes()[:-100], bytes([*kept.read_bytes()[:200], *range(200)])):
        kept.write_bytes(spoilt)
        assert damaged.rank(by="loss") == expected
    names = tmp_path / "copy" / "examples.parquet"
    whole = names.read_bytes()
    for spoilt in (b"", whole[:-9], whole[:40] + b"\xff" * 40 + whole[80:]):
        names.write_bytes(spoilt)
        message = r"examples\.parquet cannot be read.*gradstore verify"
        with pytest.raises(StoreCorruptError, match=message):
            gradstore.open(tmp_path / "copy").rank()
        with pytest.raises(StoreCorruptError, match=message):
            gradstore.open(tmp_path / "copy").proponents("7")


def test_an_unfinished_store_is_not_ranked(opened: gradstore.GradientStore, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(opened.store.folder, tmp_path / "copy")
    Store.open(tmp_path / "copy").discard(0, 0)
    with pytest.raises(StoreIncompleteError):
        gradstore.open(tmp_path / "copy").rank()
