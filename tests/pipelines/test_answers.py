"""Sheets of answers: whose pictures they show, and what they say when there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from gradstore.data import open_source
from gradstore.report import answers as report
from gradstore.store import Store
from gradstore.task import Batch, example_keys
from gradstore.testing.store_kit import example_batches, manifest_of
from gradstore_pipelines import answers
from gradstore_pipelines.answers import Asked, Listing, write_answers

N = 11
ROWS = np.random.default_rng(0).integers(0, 256, (N, 6, 6), dtype=np.uint8)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    np.save(tmp_path / "data.npy", ROWS)
    manifest = manifest_of(
        label_names=("cat", "dog"), provenance={"source": open_source(tmp_path / "data.npy").describe()}
    )
    ids, labels = [str(row) for row in range(N)], [row % 2 for row in range(N)]
    return Store.create(tmp_path / "store", manifest, example_batches(ids, labels))


@pytest.fixture
def sheets(monkeypatch: pytest.MonkeyPatch) -> list[report.Sheet]:
    """Every sheet that is written."""
    written: list[report.Sheet] = []

    def kept(sheet: report.Sheet) -> str:
        written.append(sheet)
        return report.html(sheet)

    monkeypatch.setattr(answers, "html", kept)
    return written


def listing(store: Store, rows: list[int]) -> Listing:
    table = store.examples_at(np.array(rows)).append_column("score", pa.array(np.linspace(1, 0.5, len(rows))))
    return Listing(name="Proponents", meaning="", tone="cool", table=table)


def write(store: Store, asked: Asked, rows: list[int]) -> list[str]:
    lists = [listing(store, rows)] * 2
    return list(write_answers(store, asked, lists, store.folder.parent / "a.html", "html", meaning="m", facts={}))


def test_every_example_is_shown_beside_its_own_id(store: Store, sheets: list[report.Sheet]) -> None:
    assert write(store, Asked(queries=["7", "2"], names=["7", "2"]), [4, 9, 7, 10]) == []
    first, second = sheets[0].answers
    assert [found.id for found in second.ends[0].found] == ["7", "10"]
    for answer in (first, second):
        for found in answer.ends[1].found:
            np.testing.assert_array_equal(found.example, ROWS[int(found.id)][None])
    assert (first.query, first.label, second.label) == ("7", "dog", "cat")
    np.testing.assert_array_equal(first.examples[0], ROWS[7][None])


def test_queries_of_a_file_are_shown_as_they_were_asked(store: Store, sheets: list[report.Sheet]) -> None:
    inputs = torch.rand(3, 1, 6, 6)
    batch = Batch(inputs, torch.tensor([1, 0, 1]), example_keys("abc"))
    write(store, Asked(queries=batch, names=["a", "b", "c"]), [1, 2, 3])
    assert [answer.label for answer in sheets[0].answers] == ["dog", "cat", "dog"]
    np.testing.assert_array_equal(sheets[0].answers[2].examples[0], inputs[2].numpy())


def test_a_set_that_was_asked_as_one_is_one_answer(store: Store, sheets: list[report.Sheet]) -> None:
    names = [str(row) for row in range(N)]
    write(store, Asked(queries=names, names=["mean of 11 queries"]), [1, 2, 3])
    (answer,) = sheets[0].answers
    assert sheets[0].title == "What lies behind 11 queries together"
    assert (answer.label, len(answer.examples), len(answer.ends[0].found)) == (None, 9, 3)


@pytest.mark.parametrize("spoil", ["gone", "shorter", "renamed"])
def test_without_its_data_the_sheet_says_so_and_lists_ids(
    store: Store, sheets: list[report.Sheet], spoil: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = store.folder.parent / "data.npy"
    if spoil == "gone":
        data.unlink()
    elif spoil == "shorter":
        np.save(data, ROWS[:5])
    else:
        monkeypatch.setattr("gradstore.data.arrays.ArraySource.ids", lambda self, index: ["other"])
    (note,) = write(store, Asked(queries=["3"], names=["3"]), [4, 9])
    assert note.startswith("There are no pictures, for the store's data cannot be read")
    assert sheets[0].notes == [note]
    assert not sheets[0].answers[0].is_pictured
    assert [found.id for found in sheets[0].answers[0].ends[0].found] == ["4", "9"]


def test_a_store_that_does_not_know_its_data_has_no_pictures(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "s", manifest_of(), example_batches([str(row) for row in range(N)]))
    assert "does not say which data" in write(store, Asked(queries=["3"], names=["3"]), [4])[0]


def test_a_sheet_of_very_many_says_what_it_leaves_out(
    store: Store, sheets: list[report.Sheet], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(answers._MOST_EXAMPLES, "html", 8)
    monkeypatch.setattr(answers, "_MOST_FOUND", 2)
    names = ["1", "2", "3"]
    notes = write(store, Asked(queries=names, names=names), [4, 5, 6, 7, 8, 9, 10, 0, 1])
    assert [len(end.found) for answer in sheets[0].answers for end in answer.ends] == [2] * 4
    assert "first 2 of 3 queries" in notes[0]
    assert "first 2 of 3 examples" in notes[1]


def test_large_images_are_reduced_as_they_are_read(tmp_path: Path, sheets: list[report.Sheet]) -> None:
    np.save(tmp_path / "data.npy", np.zeros((N, 400, 300), np.uint8))
    provenance: dict[str, Any] = {"source": open_source(tmp_path / "data.npy").describe()}
    ids = [str(row) for row in range(N)]
    store = Store.create(tmp_path / "store", manifest_of(provenance=provenance), example_batches(ids))
    write(store, Asked(queries=["3"], names=["3"]), [4])
    shown = sheets[0].answers[0].ends[0].found[0].example
    assert isinstance(shown, np.ndarray)
    assert shown.shape == (1, 192, 144)
