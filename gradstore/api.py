"""A gradient store as a library user sees it: `gradstore.open(path)`, then ask.

Each method says what the command of the same name says; tables are pyarrow's, so `.to_pandas()`, Polars and
DuckDB take them as they are. A store with gradients of several sets of parameters is opened for one of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Int64, Shaped

from gradstore.devices import usable_device
from gradstore.errors import IndexFileError, QueryError
from gradstore.ranking.cache import cached_signals
from gradstore.ranking.rank import rank_table
from gradstore.search.conformal import Voters, conformal_credibility, credibility_table
from gradstore.search.faiss_build import DEFAULT_MEMORY
from gradstore.search.faiss_index import INDEX_TYPES, FaissIndex
from gradstore.search.faiss_kinds import kind_named
from gradstore.search.filters import Filter, all_of
from gradstore.search.graph import KnnGraph
from gradstore.search.index import card_path
from gradstore.search.influence import AskedQueries, InfluenceSearch, SearchOptions, searchable_of
from gradstore.search.latent import nearest_latents
from gradstore.search.neighbours import Neighbours
from gradstore.search.rows import stored_queries
from gradstore.search.searchable import Coverage, Searchable, chosen_checkpoints
from gradstore.search.space import Metric, SpaceName
from gradstore.search.vectors import stored_form
from gradstore.search.weights import Normalise
from gradstore.sketcher import Sketcher, sketcher_of
from gradstore.store import Store, VerifyReport, verify
from gradstore.store.files import make_folder
from gradstore.store.kept import kept_rows
from gradstore.store.place import Location
from gradstore.task import Batch, example_keys

Queries = Batch | str | Sequence[str] | np.ndarray
"""A batch; one id of the store or several; or raw rows [q, *example_shape] as in the source."""
SEARCHED = "gradstore.search"
"""The key in an answer's metadata under which stands which search answered, as JSON: index, why, recall."""
COVERAGE = "gradstore.coverage"
"""The key under which stands how much of an unfinished store it is from, as JSON: n_searched, n_examples."""
_Checked = Batch | list[str] | np.ndarray


def open(path: Location, *, parameters: str | None = None, device: str = "cpu") -> GradientStore:
    """Open a gradient store.

    Args:
        parameters: whose gradients to ask, one of the sets that the store was built with; the first by default.
        device: where queries are sketched and searched.

    Raises:
        StoreNotFoundError: there is none at `path`.
        QueryError: the store has no such set; lists those it has.
    """
    store = Store.open(path)
    return GradientStore(store if parameters is None else store.of_set(parameters), device)


class GradientStore:
    """Questions to a gradient store. `store` gives the rows themselves."""

    def __init__(self, store: Store, device: str = "cpu") -> None:
        self.store, self.device = store, usable_device(device)
        self._sketcher: Sketcher | None = None
        self._indexes: dict[Path, tuple[int, FaissIndex]] = {}
        self._influence = InfluenceSearch(store, self.index, self.device)

    @property
    def sketcher(self) -> Sketcher:
        """The store's own model, checkpoints and projection; the model is built when first needed."""
        if self._sketcher is None:
            self._sketcher = sketcher_of(self.store, self.device)
        return self._sketcher

    def rank(
        self,
        *,
        signals: Sequence[str] | None = None,
        by: str = "combined",
        top: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> pa.Table:
        """Examples, most suspicious first: id, path, label, rank, score, percentile, every signal, reason.

        Args:
            signals: names of the signals to compute; by default all that the store has (kept for the next time).
            by: the signal that orders the table, or `combined`.
            top: only so many rows, at least one.
            progress: told how many rows have been read, and of how many.

        Raises:
            StoreIncompleteError: the build has not finished.
            UnknownSignalError: no such signal.
            QueryError: a signal that needs what this store does not keep, or a `top` below 1.
        """
        if top is not None and top < 1:
            raise QueryError(f"top={top} shows nothing; ask for at least 1 example, or leave it out for all.")
        rows = kept_rows(self.store)
        table = rank_table(rows, cached_signals(rows, signals, by, progress), by)
        return table if top is None else table.slice(0, top)

    def proponents(self, queries: Queries, k: int = 10, **options: Unpack[SearchOptions]) -> pa.Table:
        """The k training examples that most lower each query's loss, highest score first.

        A score is sum_t eta_t <g_t(x), g_t(query)>: to first order, by how much the training steps on x lowered
        the query's loss. Columns: query, rank, id, label, path, score; the schema's metadata says under
        `gradstore.search` which search answered, and why. See `search` for queries and options.
        """
        (proponents,) = self._ends(queries, k, (True,), options)
        return proponents

    def opponents(self, queries: Queries, k: int = 10, **options: Unpack[SearchOptions]) -> pa.Table:
        """The k training examples that most raise each query's loss, lowest (most negative) score first."""
        (opponents,) = self._ends(queries, k, (False,), options)
        return opponents

    def both_ends(self, queries: Queries, k: int = 10, **options: Unpack[SearchOptions]) -> tuple[pa.Table, pa.Table]:
        """(proponents, opponents): the exact search finds both in one pass over the store."""
        proponents, opponents = self._ends(queries, k, (True, False), options)
        return proponents, opponents

    def search(
        self, queries: Queries, k: int = 10, *, largest: bool = True, **options: Unpack[SearchOptions]
    ) -> Neighbours:
        """Store rows and scores of the best k examples for each query, or with `reduce` for all of them.

        Args:
            queries: ids in the store, or one; a Batch; or raw rows [q, *example_shape] as in the source.
            options: see `SearchOptions`.

        Raises:
            QueryError: k or a query that the store cannot answer, a filter that lets nothing through.
            UnknownExampleError: an id that the store has not.
            StoreIncompleteError: nothing is done yet; or not all, and all is required.
            IndexNotFoundError: an index was asked for by name and has not been built.
            IndexMismatchError: it was built from other rows than the store now holds.
            IndexFileError: it is damaged.
        """
        return self._found(_checked(queries), k, (largest,), options)[0]

    def coverage(self, checkpoints: Sequence[int] | None = None) -> Coverage:
        """How much of an unfinished store a search at these checkpoints would be from, now.

        Raises:
            StoreIncompleteError: nothing is done yet.
        """
        return Searchable.of(self.store, checkpoints).coverage

    def _ends(self, queries: Queries, k: int, ends: tuple[bool, ...], options: SearchOptions) -> list[pa.Table]:
        queries = _checked(queries)
        names = _names(queries) if options.get("reduce") is None else [_mean_of(len(queries))]
        return [self._as_table(names, found) for found in self._found(queries, k, ends, options)]

    def _found(self, queries: _Checked, k: int, ends: tuple[bool, ...], options: SearchOptions) -> list[Neighbours]:
        searchable = searchable_of(self.store, options)
        return self._influence.find(searchable, self._asked(queries, searchable), k, ends, options)

    def neighbours(
        self,
        queries: Queries,
        k: int = 10,
        *,
        checkpoint: int | Sequence[int] = -1,
        metric: Metric = "l2",
        filter: Filter | None = None,
        include_self: bool = False,
    ) -> pa.Table:
        """The k nearest examples in latent space; scores are importances 1 / (distance + eps).

        Latents alone are computed of a query: it needs no label, whatever the model learns from. Columns: query, rank,
        id, label, path, score, distance (nearest first, in the metric's units).

        Args:
            queries: ids in the store, or one; a Batch; or raw rows [q, *example_shape] as in the source.
            checkpoint: whose latent space, or several: then distances are taken over all of them together.
            metric: `l2`, or `cosine`: 1 - the cosine, from 0 to 2.
            filter: the examples that may be found, such as `Filter.of_labels(store, ["cat"])`.
        """
        queries = _checked(queries)
        checkpoints = self._chosen([checkpoint] if isinstance(checkpoint, int) else checkpoint)
        latents, rows = self._latents(queries, checkpoints)
        exclude = None if rows is None or include_self else rows.tolist()
        found = nearest_latents(
            self.store,
            latents,
            k,
            checkpoint=checkpoints,
            metric=metric,
            exclude=exclude,
            filter=all_of(filter, Filter.kept(self.store)),
            device=self.device,
        )
        table = self._as_table(_names(queries), found)
        return table.append_column("distance", pa.array(found.distances.reshape(-1)))

    def credibility(
        self,
        queries: Queries,
        k: int = 75,
        *,
        calibration: float | Sequence[str] | None = None,
        checkpoints: Sequence[int] | None = None,
        metric: Metric = "l2",
        seed: int = 0,
        p_values: bool = False,
    ) -> pa.Table:
        """How far the labels of each query's neighbours agree on one label for it: Deep k-Nearest Neighbors.

        Columns: query, predicted (a label's name), credibility, confidence, label (the query's own, null where it has
        none or is not of the store); with `p_values` also one column a label, `p(<label>)`. What they mean, and how
        this departs from Papernot & McDaniel 2018: `gradstore.search.conformal`.

        Args:
            k: neighbours at each checkpoint.
            calibration: ids of the examples that say what is usual, best such as the model did not learn from; or a
                share of the labelled ones, drawn by `seed`; by default a tenth, at most 750.
            checkpoints: whose latents are the representations; all by default.

        Raises:
            QueryError: a store without labels, or a k or calibration that it cannot answer.
        """
        queries = _checked(queries)
        latents, rows = self._latents(queries, self._chosen(checkpoints))
        voters = self._voters(calibration, seed)
        found = conformal_credibility(
            self.store,
            latents,
            voters,
            k,
            checkpoints=checkpoints,
            metric=metric,
            own_rows=rows,
            device=self.device,
        )
        labels = None if rows is None else self.store.examples_at(rows).column("label").to_pylist()
        return credibility_table(_names(queries), found, self.store.manifest.label_names or (), labels, p_values)

    def graph(self, space: SpaceName = "gradient") -> KnnGraph:
        """The nearest examples of every example, once `gradstore graph` has found them.

        Raises:
            IndexNotFoundError: not built, or not to the end; names the command.
            IndexMismatchError: built from other rows than the store now holds.
        """
        return KnnGraph.open(self.store, space)

    def _chosen(self, checkpoints: Sequence[int] | None) -> tuple[int, ...]:
        return chosen_checkpoints(checkpoints, self.store.n_checkpoints)

    def _latents(
        self, queries: _Checked, checkpoints: Sequence[int]
    ) -> tuple[Float32[np.ndarray, "checkpoint query d_latent"], Int64[np.ndarray, " query"] | None]:
        """Of queries at these checkpoints, and their rows where they are of the store."""
        if isinstance(queries, Batch | np.ndarray):
            batch = self._fitting(queries)
            return np.stack([self.sketcher.latents(t, batch) for t in checkpoints]), None
        rows = self.store.row_of(queries)
        return np.stack([self.store.latent_rows(t, rows) for t in checkpoints]), rows

    def _voters(self, calibration: float | Sequence[str] | None, seed: int) -> Voters:
        labels, names = self.store.labels(), self.store.manifest.label_names
        if labels is None or names is None:
            raise QueryError(
                f"'{self.store.location}' has no labels, which credibility is about. Build one with --labels."
            )
        if (forgotten := self.store.forgotten()) is not None:
            labels[forgotten] = -1  # without a label an example has no say
        if calibration is None or isinstance(calibration, float | int):
            return Voters.draw(labels, len(names), calibration, seed)
        return Voters.draw(labels, len(names), self.store.row_of(list(calibration)))

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, the columns of `layer_norms`; none unless built with `--per-layer-norms`."""
        return self.store.layers

    def layer_norms(
        self, checkpoint: int, start: int = 0, stop: int | None = None
    ) -> Float32[np.ndarray, "example layer"]:
        """Exact gradient norms by layer at a checkpoint: of all examples, or of rows start to stop.

        Raises:
            QueryError: the store keeps none.
        """
        return self.store.layer_norms(checkpoint, start, self.store.n_examples if stop is None else stop)

    def build_index(self, normalise: Normalise = "none", kind: str = "rabitq", *, memory: int = DEFAULT_MEMORY) -> Path:
        """Build an index for `search`, and save it beside the store; one that is there and fits the store stays.

        Args:
            normalise: the reading that it serves; cosine and relatif share one.
            kind: `flat`, `rabitq`, `ivf-sq8`, `ivf-pq` or `hnsw`; see `gradstore.search.faiss_kinds`.
            memory: bytes that building it may take.

        Returns:
            Where it is.

        Raises:
            StoreIncompleteError: the build has not finished.
            QueryError: no such kind, or more memory is needed.
        """
        self.store.require_complete()
        path = self.index_path(normalise, kind)
        if not self.has_index(normalise, kind):
            make_folder(path.parent)
            INDEX_TYPES[kind].build(self.store, normalise, memory=memory).save(path)
        return path

    def has_index(self, normalise: Normalise = "none", kind: str = "rabitq") -> bool:
        """Whether there is a usable index, built from the rows that the store now holds."""
        try:
            self.index(normalise, kind)
        except IndexFileError:
            return False
        return True

    def index(self, normalise: Normalise = "none", kind: str = "rabitq") -> FaissIndex:
        """A saved index, with the `recall` that was measured when it was built.

        It is held against its hash and the store's rows when it is first opened, and when it was replaced since.

        Raises:
            IndexNotFoundError: there is none.
            IndexMismatchError: it was built from other rows than the store now holds.
            IndexFileError: it is damaged.
        """
        path = self.index_path(normalise, kind)
        try:
            written = card_path(path).stat().st_mtime_ns if card_path(path).exists() else 0
            if self._indexes.get(path, (0,))[0] != written or not written:
                self._indexes[path] = (written, INDEX_TYPES[kind].load(path, self.store, self.device))
            return self._indexes[path][1]
        except IndexFileError as error:
            if self.store.set_suffix:
                error.add_note(f"The index is one for --parameters {self.store.parameters!r}: give index that option.")
            raise

    def index_path(self, normalise: Normalise = "none", kind: str = "rabitq") -> Path:
        """Where an index of this kind is, or would be.

        Raises:
            QueryError: no such kind.
        """
        name = f"{kind_named(kind).name}-{stored_form(normalise)}{self.store.set_suffix}.faiss"
        return self.store.folder / "indexes" / name

    def verify(self, progress: Callable[[int], None] | None = None) -> VerifyReport:
        """Hold every committed byte against the hash in its commit record."""
        return verify(self.store, progress)

    def as_batch(self, queries: Batch | Shaped[np.ndarray, "query ..."]) -> Batch:
        """Queries as the store's model wants them.

        Raises:
            QueryError: another shape than the stored examples, or no labels where the model needs them.
        """
        queries = self._fitting(queries)
        if queries.labels is None and self.sketcher.engine.task.needs_labels:
            raise QueryError(
                "The store's model learns from labels, so a query needs its own. Give an array file with --labels, a "
                "folder with one sub-folder a class, a Batch with labels, or an example of the store by its id."
            )
        return queries

    def _fitting(self, queries: Batch | Shaped[np.ndarray, "query ..."]) -> Batch:
        """As a batch, once its shape is known to be that of the stored examples."""
        if not isinstance(queries, Batch):
            queries = _raw_batch(queries)
        expected = tuple(self.store.manifest.settings["request"]["data"]["example_shape"])
        found = tuple(queries.inputs.shape[1:])
        if found != expected:
            raise QueryError(
                f"A query has shape {found}; the examples of '{self.store.location}' have {expected}. "
                "Give queries prepared as the data were (a leading axis counts the queries)."
            )
        return queries

    def _asked(self, queries: _Checked, searchable: Searchable) -> AskedQueries:
        """Queries at the checkpoints that are searched."""
        if isinstance(queries, Batch | np.ndarray):
            sketches = self.sketcher.queries(self.as_batch(queries), self.store.parameters)
            return AskedQueries(sketches.at(searchable.checkpoints))
        rows = self.store.row_of(queries)
        return AskedQueries(stored_queries(searchable, rows), rows)

    def _as_table(self, names: Sequence[str], found: Neighbours) -> pa.Table:
        n_queries, k = found.indices.shape
        rows = found.indices.reshape(-1)
        table = self.store.examples_at(rows)
        table = table.add_column(0, "rank", pa.array(np.tile(np.arange(1, k + 1), n_queries)))
        table = table.add_column(0, "query", pa.array([name for name in names for _ in range(k)], pa.string()))
        table = table.append_column("score", pa.array(found.scores.reshape(-1)))
        return table.replace_schema_metadata({**(table.schema.metadata or {}), **_about(found)})


def _about(found: Neighbours) -> dict[bytes, bytes]:
    """What an answer's metadata say of the search."""
    about: dict[str, Any] = {}
    if found.searched is not None:
        about[SEARCHED] = found.searched.to_json()
    if found.coverage is not None:
        about[COVERAGE] = asdict(found.coverage)
    return {name.encode(): json.dumps(value).encode() for name, value in about.items()}


def _checked(queries: Queries) -> _Checked:
    """At least one query, ids as a list of strings; QueryError otherwise."""
    if isinstance(queries, np.ndarray):
        queries = queries.tolist() if queries.dtype.kind in "UO" else np.atleast_1d(queries)
    if isinstance(queries, Batch | np.ndarray):
        found: _Checked = queries
    else:
        found = [queries] if isinstance(queries, str) or not isinstance(queries, Iterable) else list(queries)
    if len(found) == 0:
        raise QueryError("There is no query. Give at least one id of the store, one row, or a batch of one example.")
    strange = [query for query in found if not isinstance(query, str)] if isinstance(found, list) else []
    if strange:
        raise QueryError(
            f"{strange[0]!r:.60} is of type {type(strange[0]).__name__}; an id is a string. "
            "Give ids as the store has them, or raw rows as one numpy array."
        )
    return found


def _mean_of(n_queries: int) -> str:
    return f"mean of {n_queries:,} {'query' if n_queries == 1 else 'queries'}"


def _names(queries: _Checked) -> list[str]:
    """Ids; what is not of the store is numbered."""
    return [str(q) for q in range(len(queries))] if isinstance(queries, Batch | np.ndarray) else queries


def _raw_batch(rows: Shaped[np.ndarray, "query ..."]) -> Batch:
    from gradstore.data.batch import as_inputs

    if np.issubdtype(rows.dtype, np.floating) and not np.isfinite(rows).all():
        raise QueryError("A query holds NaN or infinity. Clean it first.")
    return Batch(as_inputs(rows), None, example_keys(f"query-{row}" for row in range(len(rows))))
