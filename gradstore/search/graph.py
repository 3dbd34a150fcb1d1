"""The kNN graph: of every example the k nearest others, kept beside the store.

    graph/<space>/plan.json          what is asked, and the fingerprint of the rows it is asked of
    graph/<space>/rows.<shard>.npy   (index int64, distance float32) [R, k], nearest first
    graph/<space>/rows.<shard>.json  written after it: the shard is done, and what its file must hold
    graph/<space>/card.json          written last: the recall that was measured

Space is `latent` or `gradient`, with the store's suffix for another set of parameters. One shard is one unit of work
and one file, so units run anywhere, in any order and more than once. A graph of other rows than the store now holds
is stale: it is refused when read, and made anew when built. It is of all examples, forgotten or not, and who reads it
sees none of the forgotten: forgetting and remembering cost no new graph.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float32, Int, Int64

from gradstore.errors import (
    IndexFileError,
    IndexMismatchError,
    IndexNotFoundError,
    StoreCorruptError,
    UnknownExampleError,
)
from gradstore.search.space import Metric, Space, SpaceName
from gradstore.store.commits import FileHash
from gradstore.store.files import replacing, write_atomically, write_errors
from gradstore.store.sealed import json_text, require_sealed, sealed
from gradstore.store.store import Store

_VERSION = 1
Method = Literal["exact", "cells"]


@dataclass(frozen=True, kw_only=True)
class GraphPlan:
    """What a graph is asked to be; the same plan gives the same graph."""

    space: SpaceName
    metric: Metric
    checkpoints: tuple[int, ...]
    k: int
    method: Method
    recall: float
    """share of the neighbours that cells shall hold; 1 where all rows are compared"""
    n_examples: int
    shard_rows: int
    fingerprint: str
    """of the store's rows"""
    version: int = _VERSION

    def to_json(self) -> dict[str, Any]:
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> GraphPlan:
        return cls(**{**data, "checkpoints": tuple(data["checkpoints"])})

    def digest(self) -> str:
        """Kept in every record, so that a file of another plan never counts."""
        return hashlib.sha256(json_text(self.to_json()).encode()).hexdigest()

    def differences(self, other: GraphPlan) -> list[str]:
        """Names and both values of the settings that differ."""
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return [f"{name}={mine} instead of {theirs}" for name, mine, theirs in pairs if mine != theirs]


@dataclass(frozen=True, kw_only=True)
class GraphCard:
    """What a finished graph is known to be."""

    plan: str
    """digest of its plan"""
    recall: float
    """share of true neighbours it holds, on a sample"""
    sampled: int
    """rows of that sample"""
    compared: float
    """share of all cells that a row's neighbours were sought in; 1 where all rows were compared"""


class GraphFiles:
    """The files of one graph of a store."""

    def __init__(self, store: Store, space: SpaceName) -> None:
        suffix = store.set_suffix if space == "gradient" else ""
        self.store, self.folder = store, store.folder / "graph" / f"{space}{suffix}"

    @property
    def cells(self) -> Path:
        return self.folder / "cells"

    def plan(self) -> GraphPlan | None:
        """What was begun here, by this version; None where nothing was."""
        try:
            return GraphPlan.from_json(_sealed_document(self.folder / "plan.json"))
        except (FileNotFoundError, StoreCorruptError, ValueError, TypeError, KeyError):
            return None

    def card(self, plan: GraphPlan) -> GraphCard | None:
        """The card of the finished graph of this plan; None where it is not finished."""
        try:
            card = GraphCard(**_sealed_document(self.folder / "card.json"))
        except (FileNotFoundError, StoreCorruptError, ValueError, TypeError):
            return None
        return card if card.plan == plan.digest() and not any(self.pending(plan)) else None

    def begin(self, plan: GraphPlan) -> None:
        """An empty graph of this plan; whatever was here goes."""
        with write_errors(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        write_atomically(self.folder / "plan.json", sealed(plan.to_json()).encode())

    def finish(self, card: GraphCard) -> None:
        """Write the card; the cells are needed no more."""
        write_atomically(self.folder / "card.json", sealed(asdict(card)).encode())
        shutil.rmtree(self.cells, ignore_errors=True)

    def pending(self, plan: GraphPlan) -> Iterator[int]:
        """Shards that are not done, in order."""
        return (shard for shard in range(self.store.n_shards) if not self.is_done(plan, shard))

    def is_done(self, plan: GraphPlan, shard: int) -> bool:
        record, file = self._record(shard), self.rows_file(shard)
        try:
            found = _sealed_document(record)
            return bool(found["plan"] == plan.digest() and file.stat().st_size == found["file"]["bytes"])
        except (FileNotFoundError, StoreCorruptError, ValueError, KeyError, TypeError):
            return False

    def write(
        self,
        plan: GraphPlan,
        shard: int,
        indices: Int64[np.ndarray, "row k"],
        distances: Float32[np.ndarray, "row k"],
    ) -> None:
        """Write one shard's rows, then its record; on return both have reached the disk."""
        rows = np.empty(indices.shape, dtype=[("index", "<i8"), ("distance", "<f4")])
        rows["index"], rows["distance"] = indices, distances
        file = self.rows_file(shard)
        with write_errors(file), replacing(file) as temporary, temporary.open("wb") as stream:
            np.save(stream, rows)
        held = {"name": file.name, **asdict(FileHash.read(file))}
        record = sealed({"plan": plan.digest(), "rows": list(indices.shape), "file": held})
        write_atomically(self._record(shard), record.encode())

    def rows_file(self, shard: int) -> Path:
        return self.folder / f"rows.{shard}.npy"

    def _record(self, shard: int) -> Path:
        return self.folder / f"rows.{shard}.json"


class KnnGraph:
    """A finished graph, read by rows; nothing is held in memory."""

    def __init__(self, files: GraphFiles, plan: GraphPlan, card: GraphCard) -> None:
        self._files, self.plan, self.card = files, plan, card

    @classmethod
    def open(cls, store: Store, space: SpaceName) -> KnnGraph:
        """The graph of a store in one of its spaces.

        Raises:
            IndexNotFoundError: it was not built, or not to the end.
            IndexMismatchError: it was built from other rows than the store now holds.
        """
        files, command = GraphFiles(store, space), f"gradstore graph {store.location} --space {space}"
        plan = files.plan()
        if plan is None:
            raise IndexNotFoundError(f"'{store.location}' has no graph of its {space}s. Run: {command}")
        if plan.fingerprint != (now := fingerprint_of(store, space)):
            raise IndexMismatchError(
                f"The graph at {files.folder} was built from other rows (fingerprint {plan.fingerprint[:12]}) than the "
                f"store now holds ({now[:12]}). Run: {command}"
            )
        card = files.card(plan)
        if card is None:
            done = store.n_shards - sum(1 for _ in files.pending(plan))
            raise IndexNotFoundError(
                f"The graph at {files.folder} is not finished: {done} of {store.n_shards} shards are done. "
                f"Run: {command} (it continues where it stopped)"
            )
        return cls(files, plan, card)

    @property
    def k(self) -> int:
        return self.plan.k

    @property
    def n_examples(self) -> int:
        return self.plan.n_examples

    @property
    def recall(self) -> float:
        """Share of the true neighbours that it holds, measured on a sample."""
        return self.card.recall

    def blocks(self) -> Iterator[tuple[int, int]]:
        """(start, stop) of each shard."""
        return self._files.store.blocks(self.plan.shard_rows)

    def rows(self, start: int, stop: int) -> tuple[Int64[np.ndarray, "row k"], Float32[np.ndarray, "row k"]]:
        """Neighbours' rows and distances of a range of examples, nearest first."""
        return self.rows_at(np.arange(start, stop))

    def rows_at(
        self, indices: Sequence[int] | Int[np.ndarray, " row"], *, with_forgotten: bool = False
    ) -> tuple[Int64[np.ndarray, "row k"], Float32[np.ndarray, "row k"]]:
        """The same of scattered examples, in their order.

        Forgotten neighbours are left out: in their place -1, at an infinite distance, fills up the end of the row.

        Raises:
            UnknownExampleError: a row that is not there.
            IndexFileError: a shard's file is damaged.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        outside = wanted[(wanted < 0) | (wanted >= self.n_examples)]
        if outside.size:
            raise UnknownExampleError(f"The graph has rows 0 to {self.n_examples - 1}, not {outside[0]}.")
        neighbours, distances = np.empty((len(wanted), self.k), np.int64), np.empty((len(wanted), self.k), np.float32)
        shards, places = np.divmod(wanted, self.plan.shard_rows)
        for shard in np.unique(shards):
            mine = np.flatnonzero(shards == shard)
            rows = self._mapped(int(shard))[places[mine]]
            neighbours[mine], distances[mine] = rows["index"], rows["distance"]
        forgotten = None if with_forgotten else self._files.store.forgotten()
        return (neighbours, distances) if forgotten is None else _without(forgotten, neighbours, distances)

    def _mapped(self, shard: int) -> np.ndarray[Any, Any]:
        file = self._files.rows_file(shard)
        try:
            found: np.ndarray[Any, Any] = np.load(file, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise IndexFileError(
                f"{file} cannot be read ({error}). Delete it and run gradstore graph again."
            ) from error
        return found


def _sealed_document(file: Path) -> dict[str, Any]:
    return require_sealed(file.read_text(encoding="utf-8"), file.name)


def _without(
    forgotten: Bool[np.ndarray, " example"],
    neighbours: Int64[np.ndarray, "row k"],
    distances: Float32[np.ndarray, "row k"],
) -> tuple[Int64[np.ndarray, "row k"], Float32[np.ndarray, "row k"]]:
    """The others move up; -1 and infinity fill the end."""
    gone = forgotten[neighbours]
    order = np.argsort(gone, axis=1, kind="stable")
    gone = np.take_along_axis(gone, order, axis=1)
    kept = np.take_along_axis(neighbours, order, axis=1), np.take_along_axis(distances, order, axis=1)
    return np.where(gone, -1, kept[0]), np.where(gone, np.float32(np.inf), kept[1])


def space_of(store: Store, plan: GraphPlan) -> Space:
    """What a plan compares."""
    return Space.of(store, plan.space, plan.metric, plan.checkpoints, require_complete=True)


def fingerprint_of(store: Store, space: SpaceName) -> str:
    """Of the rows that a graph is made of; latents belong to no set of parameters."""
    return (store if space == "gradient" else store.of_set(store.parameter_sets[0])).content_fingerprint()
