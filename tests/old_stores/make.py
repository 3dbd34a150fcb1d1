"""Makes the tiny store that is kept for ever, one a format version: python tests/old_stores/make.py FOLDER.

Run once when the format's version changes, and commit what it makes beside the older ones. It holds all that its
format can hold. (v1, made by the gradstore of its time, has one set of parameters, for there were no more.)
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np

from gradstore.models.vae import VAE
from gradstore_pipelines.build_store import build
from gradstore_pipelines.preparation import prepare
from gradstore_pipelines.progress import Silent
from gradstore_pipelines.settings import BuildSettings


def rows() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """The data of the old stores: 70 rows of 6 numbers, three of them far from the others."""
    values = np.random.default_rng(7).normal(size=(70, 6)).astype(np.float32)
    values[[3, 30, 69]] *= 10
    return values


def main(folder: Path) -> None:
    """Build with a model small enough to commit; the data's path on this machine is left out."""
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "rows.npy"
        np.save(source, rows())
        settings = BuildSettings(
            source=source,
            store=folder,
            sketch_dim=16,
            epochs=4,
            n_checkpoints=2,
            device="cpu",
            parameters=("encoder", "decoder"),
            per_layer_norms=True,
            draws=2,
        )
        small = VAE(example_shape=(6,), d_latent=2, width=8, likelihood="gaussian")
        prepared = dataclasses.replace(prepare(settings, Silent()), task=small)
        with mock.patch("gradstore_pipelines.build_store.prepare", return_value=prepared):
            build(settings)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["provenance"]["source"]["path"] = "rows.npy"
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
