"""Small stores for tests: their rows are what the test says, so its oracle can be computed from the same arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from gradstore.store import Manifest, SetRows, ShardRows, Store
from gradstore.store.folder import Folder
from gradstore.store.place import Location


def store_of(
    location: Location,
    gradients: ArrayLike,
    *,
    losses: ArrayLike | None = None,
    latents: ArrayLike | None = None,
    labels: Sequence[int | None] | None = None,
    ids: Sequence[str] | None = None,
    learning_rates: Sequence[float] | None = None,
    shard_rows: int = 4,
    **manifest: Any,
) -> Store:
    """A complete store of these gradients [C, N, k], taken as their own sketches (the projection is the identity).

    Args:
        losses: [C, N]; zeros if not given.
        latents: [C, N, d]; the gradients if not given.
        labels: one an example.
        ids: `x0`, `x1`, … if not given.
        learning_rates: 1 a checkpoint if not given.
        manifest: other fields of the manifest, such as `sketch_dtype`.
    """
    sketches = np.asarray(gradients, dtype=np.float32)
    n_checkpoints, n_examples, d_sketch = sketches.shape
    loss = np.zeros(sketches.shape[:2], np.float32) if losses is None else np.asarray(losses, dtype=np.float32)
    latent = sketches if latents is None else np.asarray(latents, dtype=np.float32)
    described = manifest_of(
        n_examples=n_examples,
        d_sketch=d_sketch,
        d_latent=latent.shape[2],
        shard_rows=shard_rows,
        learning_rates=tuple(learning_rates or [1.0] * n_checkpoints),
        label_names=None if labels is None else tuple(map(str, range(1 + max(c for c in labels if c is not None)))),
        **manifest,
    )
    names = [f"x{row}" for row in range(n_examples)] if ids is None else list(ids)
    store = Store.create(location, described, example_batches(names, labels))
    fill(store, sketches, loss, latent)
    return store


def manifest_of(**changes: Any) -> Manifest:
    """A manifest of 11 examples, 2 checkpoints and shards of 4 rows, but for `changes`."""
    plain: dict[str, Any] = {
        "n_examples": 11,
        "d_sketch": 5,
        "d_latent": 3,
        "shard_rows": 4,
        "learning_rates": (0.1, 0.2),
        "label_names": None,
        "settings": {"made_by": "store_kit"},
        "provenance": {},
        "parameter_sets": ("all",),
    }
    return Manifest(**{**plain, **changes})


def fill(store: Store, sketches: NDArray[Any], losses: NDArray[Any], latents: NDArray[Any]) -> None:
    """Write every shard that is not committed from whole arrays [C, N, …]; see `shard_rows_of`."""
    for checkpoint, shard in store.pending():
        rows = shard_rows_of(store, checkpoint, shard, sketches, losses, latents)
        store.write_shard(checkpoint, shard, rows)


def shard_rows_of(
    store: Store, checkpoint: int, shard: int, sketches: NDArray[Any], losses: NDArray[Any], latents: NDArray[Any]
) -> ShardRows:
    """What a unit of work would hand over for this shard.

    The n-th set of parameters has n + 1 times the gradients; its layers share the coordinates in turn; each draw's
    gradient is half as long again as their mean. Where predictions are kept, every class is as likely as any other.
    """
    span = store.shard_range(shard)
    rows = (checkpoint, slice(span.start, span.stop))
    sets = {
        name: _set_rows((number + 1) * sketches[rows], len((store.manifest.layers or {}).get(name, ())))
        for number, name in enumerate(store.parameter_sets)
    }
    n_classes = store.manifest.n_classes
    predictions = None if n_classes is None else np.full((len(span), n_classes), -np.log(n_classes), np.float32)
    return ShardRows(sets, losses[rows], latents[rows], predictions)


def _set_rows(sketches: NDArray[Any], n_layers: int) -> SetRows:
    squares = np.square(sketches, dtype=np.float64)
    by_layer = [squares[:, layer::n_layers].sum(axis=1) for layer in range(n_layers)]
    sq_norms = squares.sum(axis=1)
    return SetRows(sketches, sq_norms, np.stack(by_layer, axis=1) if by_layer else None, 2.25 * sq_norms)


def arrays_for(store: Store, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Random sketches [C, N, k], losses [C, N] and latents [C, N, d] of a store's shape."""
    random, m = np.random.default_rng(seed), store.manifest
    rows = (m.n_checkpoints, m.n_examples)
    sketches, losses, latents = (random.normal(size=(*rows, *more)) for more in ((m.d_sketch,), (), (m.d_latent,)))
    return sketches.astype(np.float32), losses.astype(np.float32), latents.astype(np.float32)


def example_batches(
    ids: Sequence[str], labels: Sequence[int | None] | None = None, paths: Sequence[str | None] | None = None
) -> Iterator[pa.RecordBatch]:
    """Examples as `Store.create` takes them, in one batch."""
    nothing = [None] * len(ids)
    columns: dict[str, pa.Array[Any]] = {
        "id": pa.array(list(ids), pa.string()),
        "label": pa.array(list(labels or nothing), pa.int32()),
        "path": pa.array(list(paths or nothing), pa.string()),
    }
    yield pa.RecordBatch.from_pydict(columns)


@contextmanager
def dying_after(n_files: int) -> Iterator[None]:
    """Within, a folder takes `n_files` of a store's own files; whoever writes the next one is killed before it.

    What lies in `build` is not counted: those are files about the build and not of the store.
    """
    left = iter(range(n_files))

    def counted(write: Callable[..., Any]) -> Callable[..., Any]:
        def write_or_die(folder: Folder, name: str, data: bytes | memoryview) -> Any:
            if not name.startswith("build/") and next(left, None) is None:
                raise KeyboardInterrupt
            return write(folder, name, data)

        return write_or_die

    with (
        mock.patch.object(Folder, "write", counted(Folder.write)),
        mock.patch.object(Folder, "write_new", counted(Folder.write_new)),
    ):
        yield
