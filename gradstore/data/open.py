"""One door to every format: a path becomes an ExampleSource, and so does its description in another process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gradstore.data.arrays import open_npy
from gradstore.data.bucket_source import FORMAT as IN_BUCKET
from gradstore.data.bucket_source import BucketSource, open_remote_npy, reopen_bucket
from gradstore.data.idx import open_idx
from gradstore.data.idx_file import is_idx_name
from gradstore.data.image_file import EXTENSIONS
from gradstore.data.image_folder import open_image_folder, reopen_image_folder
from gradstore.data.image_survey import OnCorrupt
from gradstore.data.joined import FORMAT as JOINED
from gradstore.data.joined import reopen_joined
from gradstore.data.npz import open_npz
from gradstore.data.remote import fetched, on_this_machine
from gradstore.data.source import ExampleSource
from gradstore.errors import SourceError, SourceNotFoundError
from gradstore.store.place import Location, as_url, is_url


def open_source(
    path: Location,
    *,
    labels: Location | None = None,
    image_size: int | None = None,
    on_corrupt: OnCorrupt = "refuse",
    progress: Callable[[int], None] | None = None,
) -> ExampleSource:
    """Open a data set: a `.npy` or `.npz` file, the images of an IDX pair, or a folder of images.

    Args:
        path: the file or folder; in a bucket, the URL of an object or of a prefix.
        labels: one label an example, for array files (`.npy`, `.txt`, `.csv`, IDX); a folder has its sub-folders.
        image_size: side in pixels to which the images of a folder are resized.
        on_corrupt: whether images that cannot be decoded are refused or left out.
        progress: called with the number of images decoded since its last call: a large folder takes a while.

    Raises:
        SourceNotFoundError: nothing at `path` or `labels`.
        CorruptExampleError: a file is cut short or damaged.
        SourceError: the data cannot be used as they are; the message says what to do.
    """
    if is_url(path):
        return _open_url(as_url(path), labels, image_size=image_size, on_corrupt=on_corrupt, progress=progress)
    path, labels = Path(path), None if labels is None else on_this_machine(labels)
    if not path.exists():
        raise SourceNotFoundError(f"no data at '{path}'. Give {_SUPPORTED}.")
    if path.is_dir():
        _refuse_labels_of_folder(path, labels)
        return open_image_folder(path, image_size=image_size, on_corrupt=on_corrupt, progress=progress)
    if image_size is not None:
        raise SourceError(f"--image-size resizes the images of a folder, and '{path}' is a file. Leave it out.")
    return _open_file(path, labels)


def reopen(description: Mapping[str, Any]) -> ExampleSource:
    """The source that `ExampleSource.describe` described, without the checks of its first opening.

    Raises:
        SourceNotFoundError: its files have gone.
        SourceError: they have changed, or the description is of a format that this version does not read.
    """
    if description["format"] == JOINED:
        return reopen_joined(description, reopen)
    if description["format"] == IN_BUCKET:
        return reopen_bucket(description, reopen)
    if is_url(description["path"]):
        return open_remote_npy(description["path"], description["labels"])
    path, form = Path(description["path"]), description["format"]
    labels = Path(description["labels"]) if description.get("labels") else None
    if not path.exists():
        raise SourceNotFoundError(f"no data at '{path}', where they were. Put them back, or mount their disk here.")
    match form:
        case "npy":
            return open_npy(path, labels)
        case "npz":
            return open_npz(path, labels, verify=False)
        case "idx":
            return open_idx(path, labels, find_labels=False)
        case "images":
            return reopen_image_folder(description)
    raise SourceError(f"'{path}' was opened as {form!r}, which this version does not read. Update gradstore.")


def _open_url(url: str, labels: Location | None, **options: Any) -> ExampleSource:
    if url.endswith(".npy") and options["image_size"] is None:
        return open_remote_npy(url, labels)
    return BucketSource(open_source(fetched(url), labels=labels, **options), url, labels)


_SUPPORTED = "a .npy or .npz file, an IDX file (train-images-idx3-ubyte, .gz or not), or a folder of images"


def _open_file(path: Path, labels: Path | None) -> ExampleSource:
    if path.suffix == ".npy":
        return open_npy(path, labels)
    if path.suffix == ".npz":
        return open_npz(path, labels)
    if path.suffix == ".gz" or is_idx_name(path):
        return open_idx(path, labels)
    hint = f" For images, give their folder: '{path.parent}'." if path.name.lower().endswith(EXTENSIONS) else ""
    raise SourceError(f"'{path}' is not in a format that gradstore reads. Expected {_SUPPORTED}.{hint}")


def _refuse_labels_of_folder(path: Path, labels: Path | None) -> None:
    if labels is not None:
        raise SourceError(
            f"--labels '{labels}' goes with an array file, and '{path}' is a folder. "
            "The labels of images are the names of their sub-folders: leave --labels out."
        )
