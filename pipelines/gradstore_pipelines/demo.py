"""The demo: plant known contamination into scikit-learn's digits and see which signal finds it.

Four kinds, because each fools another signal: inverted and rotated digits, uniform noise, and foreign images
(patches of scikit-learn's two photographs). The same steps as on one's own data; only the answer is known here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, UInt8
from numpy.typing import NDArray

import gradstore
from gradstore.evaluation.detection import found_in_first, roc_auc
from gradstore.evaluation.planting import plant
from gradstore.ranking.export import export
from gradstore.ranking.signals import SIGNALS
from gradstore.store.files import make_folder
from gradstore.store.place import Location
from gradstore_pipelines.build_store import build
from gradstore_pipelines.progress import Reporter, Silent, following
from gradstore_pipelines.report import write_report
from gradstore_pipelines.settings import BuildSettings

KINDS = ("inverted", "rotated", "noise", "foreign")
_EACH = 18
_EPOCHS = 20


@dataclass(frozen=True)
class SignalScore:
    """How well one signal finds the planted examples."""

    name: str
    roc_auc: float
    found: int
    """Planted examples among the first n, n being their number."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo found and wrote."""

    n_examples: int
    n_planted: int
    planted_by_kind: Mapping[str, int]
    found_by_kind: Mapping[str, int]
    """Of each kind, among the first n of the combined ranking."""
    signals: tuple[SignalScore, ...]
    data: Path
    store: Location
    parquet: Path
    csv: Path
    html: Path
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}


def run_demo(folder: Path, reporter: Reporter | None = None, seed: int = 0) -> DemoResult:
    """Make the data, build the store, rank, and hold the ranking against what was planted.

    Raises:
        SettingsError: a seed below 0.
        StoreMismatchError: the folder holds a demo made with another seed.
        StoreWriteError: no room.
    """
    reporter, start = reporter or Silent(), time.perf_counter()
    data = folder / "digits.npz"
    settings = BuildSettings(source=data, store=folder / "store", epochs=_EPOCHS, seed=seed)
    make_folder(folder)
    images, labels, kinds = planted_digits(seed)
    _save_once(data, {"images": images, "labels": labels, "ids": _ids(len(images))})
    build(settings, reporter)
    opened = gradstore.open(settings.store)
    with following(reporter, "signals", "rows") as progress:
        table = opened.rank(progress=progress)
    files = {name: folder / f"suspicious.{name}" for name in ("parquet", "csv", "html")}
    export(table, files["parquet"])
    export(table, files["csv"])
    planted = kinds[opened.store.row_of([str(name) for name in table.column("id").to_pylist()])]
    n_planted = int((planted != "").sum())
    write_report(opened.store, table, files["html"], "gradstore demo: digits with planted errors", _truth(kinds))
    return DemoResult(
        n_examples=len(images),
        n_planted=n_planted,
        planted_by_kind={kind: int((planted == kind).sum()) for kind in KINDS},
        found_by_kind={kind: int((planted[:n_planted] == kind).sum()) for kind in KINDS},
        signals=_judge(table, planted != ""),
        data=data,
        store=settings.store,
        seconds=time.perf_counter() - start,
        **files,
    )


def planted_digits(seed: int) -> tuple[UInt8[np.ndarray, "example 8 8"], NDArray[np.int64], NDArray[np.str_]]:
    """Digits with planted errors, their labels, and of each the kind of error ('' for none)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images * (255 / 16)).astype(np.uint8)
    kinds = np.full(len(images), "", dtype="U8")
    shares = np.array_split(np.random.default_rng(seed).permutation(len(images)), len(KINDS))
    for kind, rows in zip(KINDS, shares, strict=True):
        foreign = photo_patches() if kind == "foreign" else None
        planted, mask = plant(images[rows], kind, _EACH, seed, foreign)
        images[rows], kinds[rows[mask]] = planted, kind
    return images, digits.target.astype(np.int64), kinds


def photo_patches() -> UInt8[np.ndarray, "patch 8 8"]:
    """Grey 8 x 8 pictures: squares of 64 pixels of scikit-learn's two photographs, averaged 8 by 8."""
    from sklearn.datasets import load_sample_images

    patches = []
    for photo in load_sample_images().images:
        grey = photo.mean(2)[:384, :640]
        small = grey.reshape(48, 8, 80, 8).mean((1, 3))
        patches.append(small.reshape(6, 8, 10, 8).swapaxes(1, 2).reshape(-1, 8, 8))
    return np.concatenate(patches).astype(np.uint8)


def _judge(table: pa.Table, planted: Bool[np.ndarray, " example"]) -> tuple[SignalScore, ...]:
    columns = {"combined": "score", **{name: name for name in SIGNALS}}
    n = int(planted.sum())
    scores = {name: table.column(column).to_numpy() for name, column in columns.items()}
    judged = [SignalScore(name, roc_auc(s, planted), found_in_first(s, planted, n)) for name, s in scores.items()]
    return tuple(sorted(judged, key=lambda score: -score.roc_auc))


def _truth(kinds: NDArray[np.str_]) -> dict[str, str]:
    return {"Planted errors": ", ".join(f"{int((kinds == kind).sum())} {kind}" for kind in KINDS)}


def _ids(n: int) -> NDArray[np.str_]:
    return np.array([f"digit-{row:04d}" for row in range(n)])


def _save_once(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Leave a file with the same arrays untouched, so that the build finds its data unchanged."""
    if path.is_file():
        with np.load(path) as saved:
            if all(name in saved and np.array_equal(saved[name], value) for name, value in arrays.items()):
                return
    np.savez(path, allow_pickle=False, **arrays)
