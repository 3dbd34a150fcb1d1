"""Recipes: every one that comes with gradstore runs, a mistake is refused before anything runs, a run is resumable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from gradstore.errors import UnknownSignalError
from gradstore.store import Store, verify
from gradstore_pipelines import trial
from gradstore_pipelines.progress import Silent
from gradstore_pipelines.recipe import read_recipe
from gradstore_pipelines.recipe_files import recipe_names
from gradstore_pipelines.run_recipe import plan_recipe, run_recipe
from gradstore_pipelines.settings_error import SettingsError
from gradstore_pipelines.typed_values import RecipeError

SMALL = ("train.epochs=1", "train.n_checkpoints=1", "build.sketch_dim=32", "device=cpu")
OF_RECIPE = {
    "digits": ("source=digits.npz",),
    "classifier": ("source=digits.npz",),
    "two-sets": ("source=digits.npz",),
    "image-folder": ("source=photos", "image_size=8", "build.workers=0"),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: what the recipes call their data, small."""
    images = (load_digits().images[:120] * 15).astype(np.uint8)
    np.savez(tmp_path / "digits.npz", images=images, labels=load_digits().target[:120])
    for row in range(20):
        path = tmp_path / "photos" / ("cats" if row % 2 else "dogs") / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[row]).save(path)
    (tmp_path / "photos" / "cats" / "broken.png").write_bytes(b"no image")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial, "_SECONDS", 0.01)
    return tmp_path


class Listening(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.mark.parametrize("name", OF_RECIPE)
def test_a_recipe_runs_and_writes_what_it_says(name: str) -> None:
    recipe = read_recipe(name, (*SMALL, *OF_RECIPE[name]))
    ran = run_recipe(recipe)
    assert all(stage.did for stage in ran)
    assert verify(Store.open(recipe.build.store)).ok
    assert recipe.outputs()
    assert all(path.stat().st_size > 0 for path in recipe.outputs())
    assert recipe.description


def test_the_recipe_of_a_cluster_says_which_jobs_it_takes() -> None:
    """It is run under a real SLURM in tests/cluster."""
    recipe = read_recipe("cluster")
    found = recipe.build.where().cluster
    assert found is not None
    assert (found.kind, found.jobs, found.processes) == ("slurm", 4, 4)
    assert recipe.submit.cpus == 2


def test_every_recipe_is_tested() -> None:
    assert recipe_names() == sorted([*OF_RECIPE, "cluster"])


def small_recipe(*changes: str) -> tuple[str, tuple[str, ...]]:
    Path("small.toml").write_text(
        'source = "digits.npz"\nstore = "small.store"\n[train]\nepochs = 1\nn_checkpoints = 1\n'
        '[build]\nsketch_dim = 32\n[rank]\noutput = ["out/all.csv", "out/all.parquet"]\n'
        '[report]\noutput = "out/page.html"\n'
    )
    return "small.toml", changes


def test_finished_stages_are_said_and_skipped() -> None:
    recipe = read_recipe(*small_recipe())
    run_recipe(recipe)
    before = {path: path.stat().st_mtime_ns for path in recipe.outputs()}
    listening = Listening()
    assert not any(stage.did for stage in run_recipe(recipe, listening))
    assert [words for words in listening.said if "was finished already" in words] == [
        f"Stage {number} of 4, {name}: was finished already."
        for number, name in enumerate(("train", "build", "rank", "report"), start=1)
    ]
    assert {path: path.stat().st_mtime_ns for path in recipe.outputs()} == before


def test_a_run_goes_on_where_it_was_stopped() -> None:
    recipe = read_recipe(*small_recipe())
    assert [stage.did for stage in run_recipe(recipe, until="train")] == [True]
    assert [stage.did for stage in run_recipe(recipe, until="build")] == [False, True]
    assert [stage.did for stage in run_recipe(recipe)] == [False, False, True, True]


def test_training_apart_gives_the_same_store(folder: Path) -> None:
    run_recipe(read_recipe(*small_recipe()), until="train")
    run_recipe(read_recipe(*small_recipe()), until="build")
    run_recipe(read_recipe(*small_recipe("store=whole.store")), until="build")
    for name in ("manifest.json", "commits/0-0.json", "build/scan.json"):
        assert (folder / "small.store" / name).read_bytes() == (folder / "whole.store" / name).read_bytes()


@pytest.mark.parametrize("harm", ["delete", "change", "ask otherwise", "forget", "a shard made again"])
def test_an_output_that_is_not_what_was_asked_is_made_again(folder: Path, harm: str) -> None:
    recipe = read_recipe(*small_recipe())
    run_recipe(recipe)
    if harm == "delete":
        Path("out/all.csv").unlink()
    elif harm == "change":
        Path("out/all.csv").write_text("id\n")
    elif harm == "ask otherwise":
        recipe = read_recipe(*small_recipe("rank.top=5"))
    elif harm == "forget":
        Store.open("small.store").forget(["3", "7"])
    else:
        Store.open("small.store").discard(0, 0)
    ran = {stage.stage: stage.did for stage in run_recipe(recipe)}
    assert ran["rank"] is (harm != "a shard made again")  # to the same bytes: so is the ranking
    n_rows = {"ask otherwise": 5, "forget": 118}.get(harm, 120)
    assert pyarrow.csv.read_csv("out/all.csv").num_rows == n_rows


def test_two_rankings_are_of_two_sets() -> None:
    recipe = read_recipe("two-sets", (*SMALL, "rank.1.top=7"))
    run_recipe(recipe)
    by_encoder, by_decoder = (pyarrow.csv.read_csv(path) for path in recipe.outputs()[:2])
    assert (by_encoder.num_rows, by_decoder.num_rows) == (120, 7)
    assert by_encoder.column("self_influence")[0] != by_decoder.column("self_influence")[0]


def test_a_plan_says_what_is_to_do_and_what_it_takes_and_writes_nothing(folder: Path) -> None:
    recipe = read_recipe(*small_recipe())
    before = sorted(folder.iterdir())
    plan = plan_recipe(recipe)
    assert [(stage.stage, stage.is_done) for stage in plan.stages] == [
        (name, False) for name in ("train", "build", "rank", "report")
    ]
    assert plan.stages[0].values == {"epochs": 1, "n_checkpoints": 1}
    assert plan.estimate is not None
    assert sorted(folder.iterdir()) == before
    run_recipe(recipe)
    done = plan_recipe(recipe)
    assert all(stage.is_done for stage in done.stages)
    assert done.estimate is None


def test_tables_hold_the_ranking() -> None:
    run_recipe(read_recipe(*small_recipe("rank.signal=loss")))
    table = pq.read_table("out/all.parquet")
    losses = table.column("loss").to_numpy()
    assert (np.diff(losses) <= 0).all()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (["build.sketch_dims=8"], RecipeError, r"\[build\] takes no 'sketch_dims'. Did you mean sketch_dim"),
        (["build.epochs=8"], RecipeError, r"\[build\] takes no 'epochs'. It belongs to \[train\]"),
        (["train.workers=8"], RecipeError, r"\[train\] takes no 'workers'. It belongs to \[build\]"),
        (["models=vae"], RecipeError, "takes no 'models'. Did you mean model"),
        (["train.epochs=many"], RecipeError, "epochs is 'many'; expected a whole number"),
        (["build.per_layer_norms=1"], RecipeError, "per_layer_norms is 1; expected true or false"),
        (["index.kind=annoy"], RecipeError, r"\[index\] kind is 'annoy'; expected one of flat, rabitq"),
        (["index.memory=plenty"], SettingsError, "is not a size"),
        (["rank.output=out/all.xlsx"], Exception, "xlsx"),
        (["rank.signal=lost"], UnknownSignalError, "There is no signal 'lost'"),
        (
            ["rank.parameters=decoder"],
            RecipeError,
            r"of 'decoder'; \[build\] parameters are encoder",
        ),
        (["report.output=out/all.csv"], SettingsError, "a page is an .html file"),
        (["rank.top=0"], SettingsError, "at least 1"),
        (["train.epochs=0"], SettingsError, "at least 1"),
        (["cluster.kind=slurmy"], SettingsError, "slurm"),
        (["submit.time=soon"], SettingsError, "hours:minutes:seconds"),
        (["rank=3"], RecipeError, r"rank is 3; expected a table: a line \[rank\]"),
        (["nothing"], RecipeError, "sets nothing. Write it like --set build.workers=4"),
        (["source.deep.name=3"], RecipeError, "there is no table 'deep'|there is no table 'source'"),
    ],
)
def test_a_mistake_is_refused_before_anything_runs(
    folder: Path, changes: list[str], error: type[Exception], words: str
) -> None:
    name, _ = small_recipe()
    with pytest.raises(error, match=words) as caught:
        read_recipe(name, changes)
    assert caught.value.__notes__ == ["In the recipe 'small.toml'."]
    assert not (folder / "small.store").exists()


def test_what_must_be_there_is_named() -> None:
    Path("empty.toml").write_text('store = "a.store"\n')
    with pytest.raises(RecipeError, match=r"does not say source\. Add it: source = …"):
        read_recipe("empty.toml")


def test_two_stages_do_not_write_one_file() -> None:
    Path("twice.toml").write_text(
        'source = "digits.npz"\nstore = "a.store"\n[[rank]]\noutput = "a.csv"\n[[rank]]\noutput = "a.csv"\n'
    )
    with pytest.raises(RecipeError, match=r"'a\.csv' is written by more than one stage"):
        read_recipe("twice.toml")


def test_a_recipe_that_is_not_there_names_those_that_are() -> None:
    with pytest.raises(RecipeError, match=r"There is no recipe 'digit'.*Did you mean digits\?"):
        read_recipe("digit")


def test_what_is_no_toml_is_told_with_its_place() -> None:
    Path("bad.toml").write_text("source = digits.npz\n")
    with pytest.raises(RecipeError, match=r"is no TOML: .*line 1"):
        read_recipe("bad.toml")
