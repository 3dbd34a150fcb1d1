"""`scan`: statistics against float64 numpy on the whole array, the content hash, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradstore.data import DataSummary, open_source, scan
from gradstore.data.moments import Moments
from gradstore.data.source import ExampleSource
from gradstore.errors import NonFiniteDataError, SourceError


def opened(folder: Path, array: np.ndarray, labels: np.ndarray | None = None, **more: np.ndarray) -> ExampleSource:
    members = {"x": array, **({} if labels is None else {"y": labels}), **more}
    np.savez(folder / "data.npz", **members)  # type: ignore[arg-type]
    return open_source(folder / "data.npz")


def images(n: int = 23) -> np.ndarray:
    return np.random.default_rng(0).integers(3, 250, (n, 4, 5), dtype=np.uint8)


def test_bytes_are_summarised_in_units_of_0_to_1(tmp_path: Path) -> None:
    array = images()
    summary, exact = scan(opened(tmp_path, array)), array[:, None] / 255
    assert summary.feature_mean is not None
    assert summary.feature_std is not None
    assert (summary.n_examples, summary.example_shape, summary.dtype) == (23, (1, 4, 5), "uint8")
    assert summary.n_classes is None
    found = (summary.minimum, summary.maximum, summary.mean, summary.std)
    np.testing.assert_allclose(found, (exact.min(), exact.max(), exact.mean(), exact.std()), rtol=1e-12)
    np.testing.assert_allclose(summary.feature_mean, exact.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(summary.feature_std, exact.std(axis=0), rtol=1e-6)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.sampled_from([0.0, 1e6]))
def test_moments_do_not_depend_on_the_blocks(lengths: list[int], offset: float) -> None:
    values = np.random.default_rng(sum(lengths)).normal(offset, 1, (sum(lengths), 3))
    moments = Moments((3,))
    for block in np.split(values, np.cumsum(lengths)[:-1]):
        moments.add(block)
    np.testing.assert_allclose(moments.feature_mean, values.mean(axis=0), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(moments.feature_std, values.std(axis=0), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose((moments.mean, moments.std), (values.mean(), values.std()), rtol=1e-9)


def test_a_constant_feature_deviates_by_exactly_0(tmp_path: Path) -> None:
    array = np.full((1000, 2), 0.1, dtype=np.float32)
    array[:, 1] = np.arange(1000)
    summary = scan(opened(tmp_path, array), block_bytes=64)
    assert summary.feature_std is not None
    assert summary.feature_std[0] == 0


def test_the_hash_does_not_depend_on_the_block_size(tmp_path: Path) -> None:
    source = opened(tmp_path, images(), np.arange(23) % 3)
    assert len({scan(source, block_bytes=size).content_hash for size in (1, 500, 1 << 20)}) == 1


def test_the_hash_does_not_depend_on_the_format(tmp_path: Path) -> None:
    archive = scan(opened(tmp_path, images(), np.arange(23) % 3))
    np.save(tmp_path / "x.npy", images())
    (tmp_path / "y.txt").write_text("\n".join(str(row % 3) for row in range(23)))
    assert scan(open_source(tmp_path / "x.npy", labels=tmp_path / "y.txt")) == archive


def test_the_hash_changes_with_pixels_order_labels_names_and_ids(tmp_path: Path) -> None:
    array, labels, ids = images(), np.arange(23) % 3, np.array([str(row) for row in range(23)])
    other = array.copy()
    other[22, 3, 4] += 1
    variants = [
        (array, labels, ids),
        (other, labels, ids),
        (array[::-1], labels, ids),
        (array, labels[::-1], ids),
        (array, labels + 1, ids),
        (array, labels, ids[::-1]),
        (array.astype("int64"), labels, ids),
    ]
    hashes = {scan(opened(tmp_path, x, y, ids=names)).content_hash for x, y, names in variants}
    assert len(hashes) == len(variants)


def test_a_summary_survives_json_without_its_arrays(tmp_path: Path) -> None:
    summary = scan(opened(tmp_path, images(), np.arange(23) % 3))
    again = DataSummary.from_json(json.loads(json.dumps(summary.to_json())))
    assert again == summary
    assert again.n_classes == 3
    assert again.feature_mean is None


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_values_that_are_not_finite_are_named_by_id(tmp_path: Path, value: float) -> None:
    array = np.zeros((30, 2, 2))
    array[12:25, 1, 0] = value
    with pytest.raises(NonFiniteDataError, match=r"13 of 30 examples.*'12', '13', .*'21'\. Expected finite"):
        scan(opened(tmp_path, array), block_bytes=200)


def test_progress_counts_every_example(tmp_path: Path) -> None:
    calls: list[int] = []
    scan(opened(tmp_path, images()), calls.append, block_bytes=800)
    assert len(calls) > 1
    assert sum(calls) == 23


def test_equal_ids_are_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, names = opened(tmp_path, images(4)), np.array(["a", "b", "a", "c"])
    monkeypatch.setattr(source, "ids", lambda index: names[index].tolist())
    with pytest.raises(SourceError, match=r"1 pairs .* 'a' \(rows 0 and 2\)"):
        scan(source)
