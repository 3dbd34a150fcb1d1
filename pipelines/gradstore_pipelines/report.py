"""The page of a ranking: the most suspicious examples and their neighbours, beside the least suspicious."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gradstore.data import ExampleSource, reopen
from gradstore.ranking.rank import cut_off_of
from gradstore.report.page import Card, render_page
from gradstore.search.filters import Filter
from gradstore.search.latent import nearest_latents
from gradstore.store import Store
from gradstore.store.files import write_atomically

_SUSPICIOUS, _ORDINARY, _NEIGHBOURS = 48, 24, 5


def write_report(store: Store, table: pa.Table, path: Path, title: str, facts: Mapping[str, str] | None = None) -> None:
    """Write one self-contained HTML file.

    Args:
        table: a whole ranking, as `GradientStore.rank` gives it.
        facts: shown at the top beside what the store says of itself.

    Raises:
        SourceError: the data have gone or changed since the build: there would be no pictures.
        StoreWriteError: no room.
    """
    source = reopen(store.manifest.provenance["source"])
    n = table.num_rows
    suspicious = table.slice(0, min(_SUSPICIOUS, n))
    ordinary = table.slice(max(n - _ORDINARY, suspicious.num_rows))
    page = render_page(
        title=title,
        facts={**_facts(store), **(facts or {})},
        suspicious=_cards(store, source, suspicious, with_neighbours=True),
        ordinary=_cards(store, source, ordinary.take(np.arange(ordinary.num_rows)[::-1]), with_neighbours=False),
        scores=table.column("score").to_numpy(),
        cut_off=cut_off_of(table),
    )
    write_atomically(path, page.encode())


def _cards(store: Store, source: ExampleSource, table: pa.Table, *, with_neighbours: bool) -> list[Card]:
    if not table.num_rows:
        return []
    rows = store.row_of([str(name) for name in table.column("id").to_pylist()])
    beside = _pictures_beside(store, source, rows) if with_neighbours else [[] for _ in rows]
    pictures = source.rows(rows)
    return [
        Card(picture=picture, neighbours=near, **_words(row))
        for row, picture, near in zip(table.to_pylist(), pictures, beside, strict=True)
    ]


def _words(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("id", "rank", "score", "percentile", "label", "path", "reason", "kind")}


def _pictures_beside(store: Store, source: ExampleSource, rows: NDArray[np.int64]) -> list[list[NDArray[Any]]]:
    """Pictures of each row's nearest neighbours in the last checkpoint's latent space."""
    last = store.n_checkpoints - 1
    kept = Filter.kept(store)
    k = min(_NEIGHBOURS, (store.n_examples if kept is None else int(kept.allowed.sum())) - 1)
    points = store.latent_rows(last, rows)
    found = nearest_latents(store, points, k, checkpoint=last, exclude=rows.tolist(), filter=kept)
    return [list(source.rows(near)) for near in found.indices]


def _facts(store: Store) -> dict[str, str]:
    plan = store.manifest.settings["plan"]
    return {
        "Data": short_path(store.manifest.provenance["source"].get("path", "")),
        "Examples": f"{store.n_examples:,}",
        "Model": str(plan["task"]["name"]),
        "Checkpoints": f"{store.n_checkpoints}",
        "Tracked parameters": store.parameters,
        "Sketch": f"{store.d_sketch:,} numbers a gradient",
        "Store": short_path(store.location),
    }


def short_path(path: Path | str) -> str:
    """A path's last two parts: on a page the folders above say nothing, and take a line each.

    >>> short_path("/home/someone/projects/digits/digits.npz"), short_path("digits.npz")
    ('…/digits/digits.npz', 'digits.npz')
    """
    parts = Path(path).parts
    return str(path) if len(parts) <= 2 else "…/" + "/".join(parts[-2:])
