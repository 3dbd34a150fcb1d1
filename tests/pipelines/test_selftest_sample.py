"""What is planted into a sample, and what an .npz file gives back of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradstore.data import open_source
from gradstore.errors import QueryError
from gradstore.evaluation.planting import kinds_for
from gradstore_pipelines.trials.sample import Contaminated, Sample, contaminated, form_of_examples

RNG = np.random.default_rng(0)
N = 40


def sample_of(examples: np.ndarray[Any, Any], labels: np.ndarray[Any, Any] | None = None) -> Sample:
    names = None if labels is None else [f"class {code}" for code in range(labels.max() + 1)]
    ids = [f"row {row}" for row in range(len(examples))]
    return Sample(np.arange(len(examples)), examples, ids, labels, names)


def spoilt(sample: Sample, kind: str, n: int = 4) -> Contaminated:
    classes = 0 if sample.label_names is None else len(sample.label_names)
    return contaminated(sample, kind, n, seed=0, foreign=None, n_classes=classes)


@pytest.mark.parametrize(
    "examples",
    [
        RNG.integers(0, 256, (N, 1, 6, 6), dtype=np.uint8),
        RNG.integers(0, 256, (N, 3, 6, 5), dtype=np.uint8),
        RNG.random((N, 1, 30, 2)).astype(np.float32),
        RNG.random((N, 1, 3, 30)).astype(np.float32),
        RNG.random((N, 7)).astype(np.float32),
        RNG.integers(0, 50, (N, 9)),
    ],
    ids=["grey", "colour", "series", "series across", "table", "tokens"],
)
def test_a_contaminated_sample_is_read_back_as_it_was_made(examples: np.ndarray[Any, Any], tmp_path: Path) -> None:
    sample = sample_of(examples, np.arange(N) % 3)
    for kind in kinds_for(form_of_examples(examples.shape[1:], examples.dtype), examples.dtype):
        made = spoilt(sample, kind)
        assert made.examples.shape == examples.shape
        changed = (made.examples != examples).reshape(N, -1).any(axis=1)
        assert not (changed & ~made.mask).any()
        made.save(tmp_path / f"{kind}.npz", sample.ids)
        source = open_source(tmp_path / f"{kind}.npz")
        np.testing.assert_array_equal(source.rows(slice(None)), made.examples)
        np.testing.assert_array_equal(source.labels(slice(None)), made.labels)
        assert source.ids(slice(None)) == sample.ids


def test_series_that_files_give_as_images_are_spoilt_as_series() -> None:
    tall, wide = RNG.random((N, 1, 30, 2)).astype(np.float32), RNG.random((N, 1, 2, 30)).astype(np.float32)
    assert form_of_examples((1, 30, 2), tall.dtype) == form_of_examples((1, 2, 30), wide.dtype) == (30, 2)
    made = spoilt(sample_of(tall), "reversed")
    np.testing.assert_array_equal(made.examples[made.mask], tall[made.mask][:, :, ::-1])
    made = spoilt(sample_of(wide), "reversed")
    np.testing.assert_array_equal(made.examples[made.mask], wide[made.mask][..., ::-1])


def test_a_copy_has_the_label_of_what_it_is_a_copy_of() -> None:
    examples, labels = RNG.integers(0, 256, (N, 1, 20, 20), dtype=np.uint8), np.arange(N)
    made = spoilt(sample_of(examples, labels), "duplicates", n=6)
    assert made.labels is not None
    assert np.unique(made.labels[made.mask], return_counts=True)[1].tolist() == [2, 2, 2]
    assert (made.labels == labels)[~made.mask].all()


def test_no_class_is_lost_by_wrong_labels() -> None:
    labels = np.array([0] * 17 + [1] * 2 + [2])
    for kind in ("mislabelled", "mislabelled_alike"):
        made = spoilt(sample_of(RNG.random((20, 3)).astype(np.float32), labels), kind, n=17)
        assert made.labels is not None
        assert set(made.labels) == {0, 1, 2}
        assert ((made.labels != labels) == made.mask).all()
        assert made.mask.sum() == 17
    with pytest.raises(QueryError, match="17 are fewer than the 18 to flip"):
        spoilt(sample_of(RNG.random((20, 3)).astype(np.float32), labels), "mislabelled", n=18)
