"""`gradstore run` and `gradstore submit`: what they print and write."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import Result

Gradstore = Callable[..., Result]

pytestmark = pytest.mark.usefixtures("short_trials")

SMALL = (
    *("--set", "train.epochs=1", "--set", "train.n_checkpoints=1", "--set", "build.sketch_dim=32"),
    *("--set", "device=cpu"),
)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with small data and a recipe for it."""
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).random((64, 12), np.float32))
    (tmp_path / "rows.toml").write_text('source = "rows.npy"\nstore = "rows.store"\n[rank]\noutput = "ranked.csv"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_says_each_stage_and_what_is_ready(gradstore: Gradstore) -> None:
    ran = gradstore("run", "rows.toml", *SMALL)
    assert (ran.exit_code, ran.stdout) == (0, "")
    assert "Stage 2 of 3, build: done." in ran.stderr
    assert "ranked.csv is ready." in ran.stderr
    assert "Stage 3 of 3, rank: was finished already." in gradstore("run", "rows.toml", *SMALL).stderr


def test_json_tells_what_was_done_and_how_long_it_took(gradstore: Gradstore) -> None:
    document = json.loads(gradstore("run", "rows.toml", *SMALL, "--until", "build", "--json").stdout)
    assert document["store"] == "rows.store"
    assert [(stage["stage"], stage["did"]) for stage in document["stages"]] == [("train", True), ("build", True)]
    assert all(stage["seconds"] > 0 for stage in document["stages"])


def test_a_plan_lists_stages_with_their_values(gradstore: Gradstore, here: Path) -> None:
    ran = gradstore("run", "rows.toml", *SMALL, "--dry-run")
    assert ran.exit_code == 0, ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    assert ["1", "train", "to", "do", "epochs=1,", "n_checkpoints=1"] in lines
    assert ["3", "rank", "to", "do", "output=ranked.csv"] in lines
    assert "Store size" in ran.stdout
    assert not (here / "rows.store").exists()


def test_a_plan_as_json_has_the_estimate(gradstore: Gradstore) -> None:
    document = json.loads(gradstore("run", "rows.toml", *SMALL, "--dry-run", "--json").stdout)
    assert [stage["is_done"] for stage in document["stages"]] == [False, False, False]
    assert document["estimate"]["n_examples"] == 64


def test_recipes_are_listed_and_shown(gradstore: Gradstore) -> None:
    listed = json.loads(gradstore("run", "--list", "--json").stdout)["recipes"]
    assert {"digits", "cluster"} <= {recipe["name"] for recipe in listed}
    assert all(recipe["description"] for recipe in listed)
    assert "digits" in gradstore("run", "--list").stdout
    assert "[train]\nepochs = 20\n" in gradstore("run", "digits", "--show").stdout


def test_a_mistake_in_a_recipe_is_one_clear_message(gradstore: Gradstore) -> None:
    ran = gradstore("run", "rows.toml", "--set", "rank.outptu=x.csv")
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.stderr == "Error: [rank] takes no 'outptu'. Did you mean output?\nIn the recipe 'rows.toml'.\n"


def test_a_run_of_nothing_is_wrong_usage(gradstore: Gradstore) -> None:
    assert gradstore("run").exit_code == 2


def test_submit_writes_a_script_that_runs_the_same(gradstore: Gradstore, here: Path) -> None:
    ran = gradstore("submit", "rows.toml", "--set", "submit.time=01:00:00", "--json")
    assert json.loads(ran.stdout) == {"script": "gradstore-rows.sh", "system": "slurm", "submitted": None}
    script = (here / "gradstore-rows.sh").read_text()
    assert "#SBATCH --time=01:00:00\n" in script
    assert "-m gradstore_cli run rows.toml --set submit.time=01:00:00 &\n" in script


def test_without_the_system_a_job_is_not_handed_over(
    gradstore: Gradstore, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(here))
    ran = gradstore("submit", "rows.toml", "--now", "-o", "job.sh")
    assert ran.exit_code == 1
    assert "There is no command 'sbatch' here" in ran.stderr
    assert (here / "job.sh").is_file()
