"""Makes the tiny stores that are kept for ever, one or more a format version: python tests/old_stores/make.py FOLDER.

Run once when the format's version changes, and commit what it makes beside the older ones: FOLDER/v3 and what else
there is. Together they hold all that their format can hold. (v1 and v2, made by the gradstore of their time, hold
what there was then.)
"""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from gradstore.models.classifier import Classifier
from gradstore.models.vae import VAE
from gradstore.store.manifest import FORMAT_VERSION, Manifest
from gradstore.store.sealed import sealed
from gradstore.task import Task
from gradstore_pipelines.build_store import build
from gradstore_pipelines.preparation import prepare
from gradstore_pipelines.progress import Silent
from gradstore_pipelines.settings import BuildSettings

# A model small enough to commit, what is asked besides, and whether it is laid out as in a bucket.
_VAE = VAE(example_shape=(6,), d_latent=2, width=8, likelihood="gaussian")
_CLASSIFIER = Classifier(example_shape=(6,), n_classes=2, width=8)
STORES: dict[str, tuple[Task, dict[str, Any], bool]] = {
    "": (_VAE, {"parameters": ("encoder", "decoder"), "per_layer_norms": True, "draws": 2}, False),
    "-int8": (_CLASSIFIER, {"parameters": ("all",), "sketch_dtype": "int8", "model": "classifier"}, False),
    "-sharded": (_VAE, {"sketch_dtype": "float32"}, True),
}


def rows() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """The data of the old stores: 70 rows of 6 numbers, three of them far from the others."""
    values = np.random.default_rng(7).normal(size=(70, 6)).astype(np.float32)
    values[[3, 30, 69]] *= 10
    return values


def labels() -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Of those stores that have labels."""
    return (rows()[:, 0] > 0).astype(np.int64)


def make(folder: Path, task: Task, changes: dict[str, Any], *, sharded: bool) -> None:
    """Build one of them; paths on this machine are left out."""
    with tempfile.TemporaryDirectory() as temporary:
        source, classes = Path(temporary) / "rows.npy", Path(temporary) / "labels.npy"
        np.save(source, rows())
        np.save(classes, labels())
        settings = BuildSettings(
            source=source,
            labels=classes if task.needs_labels else None,
            store=folder,
            sketch_dim=16,
            epochs=4,
            n_checkpoints=2,
            device="cpu",
            **changes,
        )
        prepared = dataclasses.replace(prepare(settings, Silent()), task=task)
        manifest = functools.partial(Manifest, sharded=sharded)
        with mock.patch(f"{_BUILD}.prepare", return_value=prepared), mock.patch(f"{_BUILD}.Manifest", manifest):
            build(settings)
    _leave_out_paths(folder)


def _leave_out_paths(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    source = manifest["provenance"]["source"]
    source.update({"path": "rows.npy", "labels": source["labels"] and "labels.npy"})
    (folder / "manifest.json").write_text(sealed(manifest))
    (folder / "build" / "scan.json").unlink()


_BUILD = "gradstore_pipelines.build_store"


def main(folder: Path) -> None:
    """All of them."""
    for name, (task, changes, sharded) in STORES.items():
        make(folder / f"v{FORMAT_VERSION}{name}", task, changes, sharded=sharded)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
