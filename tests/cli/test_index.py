from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

Gradstore = Callable[..., Result]


@pytest.fixture
def own(store: Path, tmp_path: Path) -> Path:
    """A copy of the store."""
    return Path(shutil.copytree(store, tmp_path / "own.store"))


@pytest.mark.parametrize("kind", ["flat", "rabitq", "ivf-sq8", "ivf-pq", "hnsw"])
def test_every_kind_is_built_tells_its_recall_and_answers(gradstore: Gradstore, own: Path, kind: str) -> None:
    built = gradstore("index", own, "--kind", kind, "--json")
    assert built.exit_code == 0, built.stderr
    about = json.loads(built.stdout)
    assert (about["kind"], set(about["recall"])) == (
        kind,
        {f"{e}@{k}" for e in ("proponents", "opponents") for k in (10, 100)},
    )
    assert "recall of the best 10: 1.000 proponents" in built.stderr
    ran = gradstore("opponents", own, "--id", "digit-0003", "--index", kind, "--json")
    answer = json.loads(ran.stdout)
    assert answer["search"] == {"index": kind, "why": "as asked", "recall": about["recall"]}
    exact = json.loads(gradstore("opponents", own, "--id", "digit-0003", "--index", "exact", "--json").stdout)
    assert answer["rows"] == exact["rows"]


def test_a_finished_index_is_not_built_again(gradstore: Gradstore, own: Path) -> None:
    assert "Built" in gradstore("index", own).stderr
    assert "Already there:" in gradstore("index", own).stderr


def test_auto_says_on_stderr_what_it_chose_and_why(gradstore: Gradstore, own: Path) -> None:
    ran = gradstore("proponents", own, "--id", "digit-0003")
    assert "Searched exactly: the store is small." in ran.stderr
    assert "Searched" not in ran.stdout


def test_a_damaged_index_asked_for_by_name_is_an_error_with_the_cure(gradstore: Gradstore, own: Path) -> None:
    gradstore("index", own, "--kind", "flat")
    file = own / "indexes" / "flat-none.faiss"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    ran = gradstore("proponents", own, "--id", "digit-0003", "--index", "flat")
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "--kind flat" in ran.stderr
    assert "Built" in gradstore("index", own, "--kind", "flat").stderr


def test_too_little_memory_is_an_error_that_names_enough(gradstore: Gradstore, own: Path) -> None:
    ran = gradstore("index", own, "--kind", "flat", "--memory", "1MB")
    assert ran.exit_code == 1
    assert "Allow more (--memory" in " ".join(ran.stderr.split())


@pytest.mark.parametrize("words", [("--kind", "annoy"), ("--memory", "plenty"), ("--memory", "0"), ("--memory", "nan")])
def test_a_kind_or_size_that_does_not_exist_is_wrong_usage(
    gradstore: Gradstore, own: Path, words: tuple[str, str]
) -> None:
    assert gradstore("index", own, *words).exit_code == 2
