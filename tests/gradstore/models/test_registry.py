"""Ready-made tasks by name, fitted to the data, and back from their JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from gradstore.data import DataSummary, scan
from gradstore.errors import MissingLabelsError, TaskError, TaskNotFoundError
from gradstore.models import VAE, Autoencoder, Classifier, make_task, task_from_settings, task_settings
from gradstore.task import Task
from gradstore.testing.memory_source import MemorySource


def summary(low: float = 0.0, high: float = 1.0, labelled: bool = False) -> DataSummary:
    rows = np.linspace(low, high, 12, dtype=np.float32).reshape(4, 3)
    return scan(MemorySource(rows, np.array([0, 1, 2, 1]) if labelled else None))


@pytest.mark.parametrize("name", ["vae", "autoencoder"])
@pytest.mark.parametrize(("low", "high", "expected"), [(0, 1, "bernoulli"), (0, 255, "gaussian"), (-1, 1, "gaussian")])
def test_the_range_of_the_data_chooses_the_likelihood(name: str, low: float, high: float, expected: str) -> None:
    assert task_settings(make_task(name, summary(low, high), (3,)))["likelihood"] == expected


def test_the_labels_size_the_classifier() -> None:
    assert make_task("classifier", summary(labelled=True), (3,)) == Classifier(example_shape=(3,), n_classes=3)


def test_a_classifier_for_data_without_labels_is_refused() -> None:
    with pytest.raises(MissingLabelsError, match="this data has none"):
        make_task("classifier", summary(), (3,))


def test_settings_win_over_what_the_data_suggests() -> None:
    made = make_task("vae", summary(), (3,), likelihood="gaussian", d_latent=5)
    assert made == VAE(example_shape=(3,), likelihood="gaussian", d_latent=5)


@pytest.mark.parametrize(
    "task",
    [
        VAE(example_shape=(1, 8, 8), beta=2.0),
        Autoencoder(example_shape=(7,), corruption="masking"),
        Classifier(example_shape=(3, 16, 16), n_classes=4),
    ],
    ids=str,
)
def test_a_task_comes_back_from_its_json(task: Task) -> None:
    settings: dict[str, Any] = json.loads(json.dumps(task_settings(task)))
    assert task_from_settings(settings) == task


@pytest.mark.parametrize("name", ["vea", "resnet"])
def test_an_unknown_name_lists_what_there_is(name: str) -> None:
    with pytest.raises(TaskNotFoundError, match="vae, autoencoder, classifier, or your own as module:Object"):
        make_task(name, summary(), (3,))
    with pytest.raises(TaskNotFoundError):
        task_from_settings({"name": name})


def test_a_misspelt_name_is_guessed() -> None:
    with pytest.raises(TaskNotFoundError, match=r"Did you mean vae\?"):
        make_task("vea", summary(), (3,))


def test_an_unknown_setting_lists_what_there_is() -> None:
    with pytest.raises(TaskError, match=r"vae has no setting latent\. It has d_latent, width"):
        make_task("vae", summary(), (3,), latent=4)
