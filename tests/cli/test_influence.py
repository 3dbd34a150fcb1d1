"""Every option of `proponents` and `opponents`, said aloud: what the library answers, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

import gradstore as library
from gradstore.search.auto import Kind
from gradstore.search.weights import Normalise
from gradstore.store import Store
from gradstore_cli import influence

Gradstore = Callable[..., Result]
OPTIONS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "reduce": (("--reduce", "mean"), {"reduce": "mean"}),
    "cosine": (("--normalise", "cosine"), {"normalise": "cosine"}),
    "preconditioned": (("--preconditioned",), {"preconditioned": True}),
    "damping": (("--preconditioned", "--damping", 0.5), {"preconditioned": True, "damping": 0.5}),
    "checkpoint": (("--checkpoint", -1), {"checkpoints": [-1]}),
    "checkpoints": (("--checkpoint", 1, "--checkpoint", 0), {"checkpoints": [1, 0]}),
    "label": (("--only-label", 3, "--only-label", 5), {"labels": ["3", "5"]}),
    "duplicates": (("--exclude-duplicates",), {"exclude_duplicates": True}),
    "self": (("--include-self",), {"include_self": True}),
    "index": (("--index", "exact"), {"index": "exact"}),
    "complete": (("--require-complete",), {"require_complete": True}),
}


def document(ran: Result) -> Any:
    assert ran.exit_code == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def unfinished(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store without its last shard at the first checkpoint."""
    copy = tmp_path_factory.mktemp("unfinished") / "small.store"
    shutil.copytree(store, copy)
    opened = Store.open(copy)
    opened.discard(0, opened.n_shards - 1)
    return copy


@pytest.mark.parametrize("command", ["proponents", "opponents"])
@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_asks_the_library_for_the_same(gradstore: Gradstore, store: Path, command: str, name: str) -> None:
    words, options = OPTIONS[name]
    found = document(gradstore(command, store, "--id", "digit-0003", "--id", "digit-0009", "-k", 4, *words, "--json"))
    expected = getattr(library.open(store), command)(["digit-0003", "digit-0009"], 4, **options)
    assert [row["query"] for row in found["rows"]] == expected.column("query").to_pylist()
    assert [row["id"] for row in found["rows"]] == expected.column("id").to_pylist()
    assert [row["score"] for row in found["rows"]] == pytest.approx(expected.column("score").to_pylist())


def test_only_the_ids_of_a_file_are_found(gradstore: Gradstore, store: Path, tmp_path: Path) -> None:
    few = {f"digit-{row:04d}" for row in range(20, 25)}
    (tmp_path / "ids.txt").write_text("\n".join(sorted(few)) + "\n\n")
    found = document(
        gradstore("proponents", store, "--id", "digit-0003", "-k", 5, "--only-ids", tmp_path / "ids.txt", "--json")
    )
    assert {row["id"] for row in found["rows"]} == few
    assert "among" in found["search"]["why"]


def test_all_examples_of_a_file_are_asked_about_at_once(gradstore: Gradstore, store: Path, folder: Path) -> None:
    found = document(gradstore("opponents", store, "--query", folder / "digits.npz", "-k", 2, "--json"))
    assert [row["query"] for row in found["rows"][::2]] == [f"digit-{row:04d}" for row in range(130)]


def test_one_array_of_the_examples_shape_is_one_query(gradstore: Gradstore, store: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.zeros((8, 8), np.uint8))
    found = document(gradstore("proponents", store, "--query", tmp_path / "one.npy", "-k", 3, "--json"))
    assert found["n_rows"] == 3


@pytest.mark.parametrize("command", ["proponents", "opponents"])
def test_a_page_shows_both_ends(gradstore: Gradstore, store: Path, tmp_path: Path, command: str) -> None:
    ran = gradstore(command, store, "--id", "digit-0003", "-k", 4, "-o", tmp_path / "page.html", "--json")
    assert document(ran)["written"] == str(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    up, down = library.open(store).both_ends("digit-0003", 4)
    assert all(str(name) in page for table in (up, down) for name in table.column("id").to_pylist())
    assert page.count("data:image/png") == 9
    assert "lowered" in ran.stderr
    assert "raised" in ran.stderr


def test_an_image_is_a_grid_of_pictures(gradstore: Gradstore, store: Path, tmp_path: Path) -> None:
    words = ("--id", "digit-0003", "--id", "digit-0009", "--reduce", "mean", "-o", tmp_path / "grid.png")
    assert gradstore("proponents", store, *words).exit_code == 0
    assert Image.open(BytesIO((tmp_path / "grid.png").read_bytes())).size[0] == 2324


def test_neighbours_are_drawn_as_well(gradstore: Gradstore, store: Path, folder: Path, tmp_path: Path) -> None:
    words = ("--query", folder / "digit.png", "-k", 3, "-o", tmp_path / "near.html")
    assert gradstore("neighbours", store, *words).exit_code == 0
    page = (tmp_path / "near.html").read_text()
    assert "Neighbours of query digit.png" in page
    assert "digit-0007" in page


def test_the_page_of_a_store_whose_data_are_gone_lists_ids(
    gradstore: Gradstore, small_build: tuple[object, ...], folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "digits.npz", tmp_path)
    words = (small_build[0], tmp_path / "digits.npz", *small_build[2:], "--store", tmp_path / "s")
    assert gradstore(*words).exit_code == 0
    (tmp_path / "digits.npz").unlink()
    ran = gradstore("proponents", tmp_path / "s", "--id", "digit-0003", "-o", tmp_path / "page.html")
    assert ran.exit_code == 0
    assert "There are no pictures" in ran.stderr
    assert "Put them back" in (tmp_path / "page.html").read_text()


def test_an_unfinished_store_says_how_much_of_it_the_answer_is_from(gradstore: Gradstore, unfinished: Path) -> None:
    ran = gradstore("proponents", unfinished, "--id", "digit-0003", "-k", 4, "--json")
    coverage = document(ran)["coverage"]
    assert 0 < coverage["n_searched"] < coverage["n_examples"] == 130
    said = [line for line in ran.stderr.splitlines() if "not finished" in line]
    assert len(said) == 1
    assert f"{coverage['n_searched']} of 130 examples" in said[0]


def test_an_unfinished_store_is_refused_where_a_complete_one_is_required(
    gradstore: Gradstore, unfinished: Path
) -> None:
    ran = gradstore("opponents", unfinished, "--id", "digit-0003", "--require-complete")
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "same build command" in ran.stderr


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("--id", "digit-3"), 1, "Close: "),
        (("--id", "digit-0003", "-k", -1), 2, "equal to 1"),
        (("--id", "digit-0003", "--reduce", "sum"), 2, "mean"),
        (("--id", "digit-0003", "--damping", 0.1), 1, "none is asked for"),
        (("--id", "digit-0003", "--preconditioned", "--damping", -1), 2, "damping"),
        (("--id", "digit-0003", "--checkpoint", 7), 1, "checkpoints 0 to 1, not 7"),
        (("--id", "digit-0003", "--checkpoint", 0, "--checkpoint", -2), 1, "once"),
        (("--id", "digit-0003", "--only-label", "boot"), 1, "no label 'boot'"),
        (("--id", "digit-0003", "--only-ids", "nowhere.txt"), 1, "no list of ids"),
        (("--id", "digit-0003", "--device", "tpu"), 1, "tpu"),
        (("--id", "digit-0003", "--index", "hnsw"), 1, "gradstore index"),
        (("--id", "digit-0003", "--format", "png"), 2, "-o FILE.png"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_what_cannot_be_asked_is_refused(
    gradstore: Gradstore, store: Path, words: tuple[Any, ...], status: int, message: str
) -> None:
    ran = gradstore("proponents", store, *words)
    assert (ran.exit_code, ran.stdout) == (status, "")
    assert message in ran.stderr


def test_an_empty_list_of_ids_is_refused(gradstore: Gradstore, store: Path, tmp_path: Path) -> None:
    (tmp_path / "none.txt").touch()
    ran = gradstore("proponents", store, "--id", "digit-0003", "--only-ids", tmp_path / "none.txt")
    assert ran.exit_code == 1
    assert "holds no id. Give a text file" in ran.stderr


def test_queries_with_nan_are_refused(gradstore: Gradstore, store: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "nan.npy", np.full((2, 8, 8), np.nan, np.float32))
    ran = gradstore("proponents", store, "--query", tmp_path / "nan.npy")
    assert (ran.exit_code, ran.stdout) == (1, "")


@pytest.mark.parametrize(
    ("command", "known"),
    [
        ("proponents", "parquet, csv, jsonl, html, png"),
        ("neighbours", "parquet, csv, jsonl, html, png"),
        ("rank-outliers", "parquet, csv, jsonl, html"),
    ],
)
def test_an_unknown_format_names_those_there_are(
    gradstore: Gradstore, store: Path, tmp_path: Path, command: str, known: str
) -> None:
    query = () if command == "rank-outliers" else ("--id", "digit-0003")
    ran = gradstore(command, store, *query, "-o", tmp_path / "answer.xlsx")
    assert ran.exit_code == 1
    assert f"'xlsx', the extension of '{tmp_path / 'answer.xlsx'}'" in ran.stderr
    assert f"Use one of: {known}." in ran.stderr


@pytest.mark.parametrize("name", ["answer.csv", "answer.html"])
def test_a_folder_that_is_missing_is_named(gradstore: Gradstore, store: Path, tmp_path: Path, name: str) -> None:
    ran = gradstore("proponents", store, "--id", "digit-0003", "-o", tmp_path / "nowhere" / name)
    assert ran.exit_code == 1
    assert f"There is no folder '{tmp_path / 'nowhere'}' to write '{name}' into" in ran.stderr
    (tmp_path / name).mkdir()
    assert "is a folder" in gradstore("proponents", store, "--id", "digit-0003", "-o", tmp_path / name).stderr


def test_the_options_name_what_the_library_knows() -> None:
    assert get_args(influence.Index) == get_args(Kind)
    assert get_args(influence.Normalise) == get_args(Normalise)
