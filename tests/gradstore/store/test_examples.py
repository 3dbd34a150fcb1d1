from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradstore.errors import StoreCorruptError, UnknownExampleError
from gradstore.store import Store
from gradstore.store.examples import Examples, write_examples
from gradstore.store.place import place_of
from gradstore.testing.store_kit import example_batches, manifest_of

N_EXAMPLES = 150_000  # three row groups, the last one shorter


def name_of(row: int) -> str:
    return f"images/{row:06d}.png"


def batches_of(size: int) -> Iterator[pa.RecordBatch]:
    for start in range(0, N_EXAMPLES, size):
        rows = range(start, min(start + size, N_EXAMPLES))
        yield from example_batches([name_of(r) for r in rows], [r % 7 for r in rows], [f"/d/{r}" for r in rows])


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    path = tmp_path_factory.mktemp("examples") / "examples.parquet"
    write_examples(place_of(path.parent), path.name, batches_of(10_000), N_EXAMPLES)
    return Examples(lambda: path)


@settings(max_examples=25, deadline=None)
@given(start=st.sampled_from([0, 1, 65_535, 65_536, 131_000, 149_990]), n_rows=st.integers(0, 100))
def test_names_of_a_range_are_its_own(examples: Examples, start: int, n_rows: int) -> None:
    rows = range(start, min(start + n_rows, N_EXAMPLES))
    assert examples.ids(rows.start, rows.stop) == [name_of(row) for row in rows]
    assert examples.paths(rows.start, rows.stop) == [f"/d/{row}" for row in rows]


def test_a_range_may_span_row_groups(examples: Examples) -> None:
    assert examples.ids(60_000, 140_000) == [name_of(row) for row in range(60_000, 140_000)]


def test_labels_come_in_store_order(examples: Examples) -> None:
    labels = examples.labels()
    assert labels is not None
    np.testing.assert_array_equal(labels, np.arange(N_EXAMPLES) % 7)
    assert labels.dtype == np.int32


def test_ids_are_found_whatever_their_order_and_repeats(examples: Examples) -> None:
    rows = [149_999, 3, 65_536, 3, 65_535, 0]
    np.testing.assert_array_equal(examples.row_of([name_of(row) for row in rows]), rows)
    assert examples.row_of([]).dtype == np.int64


def test_an_unknown_id_is_answered_with_the_closest(examples: Examples) -> None:
    with pytest.raises(UnknownExampleError, match=r"no example 'images/149_98\.png'.* Close: 'images/1.*png'"):
        examples.row_of([name_of(2), "images/149_98.png"])


def test_an_id_like_no_other_is_answered_with_what_ids_look_like(examples: Examples) -> None:
    with pytest.raises(UnknownExampleError, match=r"'@@@' \(and 1 more\)\. Its ids look like 'images/000000\.png'"):
        examples.row_of(["@@@", "###"])


def test_the_size_of_the_batches_leaves_no_trace(tmp_path: Path, examples: Examples) -> None:
    write_examples(place_of(tmp_path), "a", batches_of(30_000), N_EXAMPLES)
    write_examples(place_of(tmp_path), "b", batches_of(150_000), N_EXAMPLES)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_row_groups_hold_what_the_format_says(tmp_path: Path) -> None:
    write_examples(place_of(tmp_path), "a", batches_of(70_000), N_EXAMPLES)
    metadata = pq.ParquetFile(tmp_path / "a").metadata
    assert [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)] == [65_536, 65_536, 18_928]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [(None, None), ([None, None, None], None), ([2, None, 0], [2, -1, 0]), ([1, 1, 0], [1, 1, 0])],
)
def test_an_example_without_a_label_has_minus_one(
    tmp_path: Path, labels: Sequence[int | None] | None, expected: list[int] | None
) -> None:
    store = Store.create(tmp_path / "s", manifest_of(n_examples=3), example_batches(["a", "b", "c"], labels))
    found = store.labels()
    assert (None if found is None else found.tolist()) == expected
    assert store.paths(0, 3) == [None, None, None]


def test_damage_anywhere_is_refused_by_name_or_harmless(tmp_path: Path) -> None:
    """Whatever byte is lost: never another id, never an error of Parquet's own."""
    names = [name_of(row) for row in range(500)]
    file = tmp_path / "examples.parquet"
    write_examples(place_of(file.parent), file.name, example_batches(names, [row % 7 for row in range(500)]), 500)
    whole = file.read_bytes()
    for position in range(0, len(whole), 7):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
        assert answer(lambda: Examples(lambda: file).ids(0, 500)) in (names, "refused")
        assert answer(lambda: Examples(lambda: file).take(np.arange(500))["id"].to_pylist()) in (names, "refused")


def answer(read: Callable[[], Any]) -> Any:
    try:
        return read()
    except StoreCorruptError as error:
        return "refused" if "examples.parquet cannot be read" in str(error) else error


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "examples.parquet").write_bytes(b"PAR1 torn")
    with pytest.raises(StoreCorruptError, match=r"examples\.parquet cannot be read"):
        Examples(lambda: tmp_path / "examples.parquet").ids(0, 1)
