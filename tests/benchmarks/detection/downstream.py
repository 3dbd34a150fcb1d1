"""What cleaning is worth: the error, on clean test data, of a model that learns without what a ranking flags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from gradstore.data import open_source, scan
from gradstore.data.batch import as_inputs
from gradstore.models import TrainingSettings, make_task, train
from gradstore.models.checkpoints import load_checkpoint
from tests.benchmarks.detection.cells import Contaminated
from tests.benchmarks.detection.hosts import Examples, Labels

_BATCH, _EPOCHS = 512, 15
Test = tuple[Examples, Labels]


def errors_after_cleaning(
    data: Contaminated, test: Test, flagged: NDArray[np.int64], folder: Path, seed: int
) -> dict[str, float]:
    """Errors with nothing removed, without the flagged rows, and without as many at random."""
    n = len(data.bad)
    kept = {name: np.ones(n, dtype=bool) for name in ("nothing removed", "flagged removed", "as many at random")}
    kept["flagged removed"][flagged] = False
    kept["as many at random"][np.random.default_rng(seed).permutation(n)[: len(flagged)]] = False
    return {name: _error_after(data, test, rows, folder / name, seed) for name, rows in kept.items()}


def _error_after(data: Contaminated, test: Test, kept: NDArray[np.bool_], folder: Path, seed: int) -> float:
    """Share of the test examples that the default classifier, trained on the kept examples, takes for another class."""
    assert data.labels is not None
    folder.mkdir()
    np.save(folder / "kept.npy", data.examples[kept])
    np.save(folder / "labels.npy", data.labels[kept])
    source = open_source(folder / "kept.npy", labels=folder / "labels.npy")
    summary = scan(source)
    task = make_task("classifier", summary, source.rows(slice(0, 1)).shape[1:])
    settings = TrainingSettings(epochs=_EPOCHS, n_checkpoints=1, seed=seed)
    (trained,) = train(task, source, summary, folder / "training", settings=settings)
    model = task.build()
    load_checkpoint(model, trained)
    assert source.label_names is not None
    classes = np.array(source.label_names).astype(np.int64)  # one that was wholly removed is not among them
    return _error(model.eval(), classes, *test)


def _error(model: torch.nn.Module, classes: Labels, examples: Examples, labels: Labels) -> float:
    wrong = 0
    with torch.no_grad():
        for start in range(0, len(examples), _BATCH):
            logits = model(as_inputs(examples[start : start + _BATCH]))
            wrong += int((classes[logits.argmax(dim=1).numpy()] != labels[start : start + _BATCH]).sum())
    return wrong / len(examples)
