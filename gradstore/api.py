"""A gradient store as a library user sees it: `gradstore.open(path)`, then ask.

Each method says what the command of the same name says; tables are pyarrow's, so `.to_pandas()`, Polars and
DuckDB take them as they are. A store with gradients of several sets of parameters is opened for one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

import numpy as np
import pyarrow as pa
from jaxtyping import Float32, Shaped

from gradstore.devices import usable_device
from gradstore.errors import IndexFileError, QueryError
from gradstore.ranking.cache import cached_signals
from gradstore.ranking.rank import rank_table
from gradstore.search.exact import ExactIndex
from gradstore.search.latent import nearest_latents
from gradstore.search.neighbours import Neighbours
from gradstore.search.rows import QuerySketches, stored_queries
from gradstore.search.weights import Normalise
from gradstore.sketcher import Sketcher, SketchPlan
from gradstore.store import Store, VerifyReport, verify
from gradstore.store.files import make_folder
from gradstore.task import Batch, example_keys

if TYPE_CHECKING:
    from gradstore.search.index import Index

Queries = Batch | str | Sequence[str] | np.ndarray
"""A batch; one id of the store or several; or raw rows [q, *example_shape] as in the source."""
Kind = Literal["exact", "flat"]
_Checked = Batch | list[str] | np.ndarray


class SearchOptions(TypedDict, total=False):
    """How influence is read and searched."""

    normalise: Normalise
    """`none`; `cosine`; or `relatif`, which divides by the training example's own root self-influence, so that
    large gradients do not win every time (Barshan et al. 2020)."""
    index: Kind
    """`exact`, or `flat` after `build_index`."""
    include_self: bool
    """Whether a query given by id may find itself; by default it may not."""


def open(path: Path | str, *, parameters: str | None = None, device: str = "cpu") -> GradientStore:
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

    @property
    def sketcher(self) -> Sketcher:
        """The store's own model, checkpoints and projection; the model is built when first needed."""
        if self._sketcher is None:
            plan = SketchPlan.from_json(self.store.manifest.settings["plan"])
            self._sketcher = Sketcher(plan, self.store.path, self.device)
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
        values = cached_signals(self.store, signals, by, progress)
        table = rank_table(self.store, values, by)
        return table if top is None else table.slice(0, top)

    def proponents(self, queries: Queries, k: int = 10, **options: Unpack[SearchOptions]) -> pa.Table:
        """The k training examples that most lower each query's loss, highest score first.

        A score is sum_t eta_t <g_t(x), g_t(query)>: to first order, by how much the training steps on x lowered
        the query's loss. Columns: query, rank, id, label, path, score. See `search` for queries and options.
        """
        queries = _checked(queries)
        return self._as_table(queries, self.search(queries, k, largest=True, **options))

    def opponents(self, queries: Queries, k: int = 10, **options: Unpack[SearchOptions]) -> pa.Table:
        """The k training examples that most raise each query's loss, lowest (most negative) score first."""
        queries = _checked(queries)
        return self._as_table(queries, self.search(queries, k, largest=False, **options))

    def search(
        self, queries: Queries, k: int = 10, *, largest: bool = True, **options: Unpack[SearchOptions]
    ) -> Neighbours:
        """Store rows and scores of the best k examples for each query.

        Args:
            queries: ids in the store, or one; a Batch; or raw rows [q, *example_shape] as in the source.

        Raises:
            QueryError: k or a query that the store cannot answer.
            IndexNotFoundError: `flat` was asked for and has not been built.
        """
        queries, normalise = _checked(queries), options.get("normalise", "none")
        sketches, rows = self._sketches(queries)
        exclude = None if options.get("include_self") else rows
        index = self._index(options.get("index", "exact"), normalise)
        return index.search(sketches, k, largest=largest, normalise=normalise, exclude=exclude)

    def neighbours(
        self, queries: Queries, k: int = 10, *, checkpoint: int = -1, include_self: bool = False
    ) -> pa.Table:
        """The k nearest examples in the latent space of a checkpoint; scores are importances 1 / (distance + eps).

        Latents alone are computed of a query: it needs no label, whatever the model learns from.
        """
        queries = _checked(queries)
        known = range(self.store.n_checkpoints)
        if not -len(known) <= checkpoint < len(known):
            raise QueryError(f"'{self.store.path}' has checkpoints 0 to {len(known) - 1}, not {checkpoint}.")
        checkpoint = known[checkpoint]
        if isinstance(queries, Batch | np.ndarray):
            latents, rows = self.sketcher.latents(checkpoint, self._fitting(queries)), None
        else:
            rows = self.store.row_of(queries)
            latents = self.store.latent_rows(checkpoint, rows)
        exclude = None if rows is None or include_self else rows.tolist()
        found = nearest_latents(self.store, latents, k, checkpoint=checkpoint, exclude=exclude, device=self.device)
        table = self._as_table(queries, found)
        return table.append_column("distance", pa.array(found.distances.reshape(-1)))

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

    def build_index(self, normalise: Normalise = "none") -> Path:
        """Build the FAISS flat index for `search(index="flat")`; cosine and relatif share one."""
        from gradstore.search.faiss_flat import FaissFlat

        self.store.require_complete()
        path = self._index_path(normalise)
        if not self.has_index(normalise):
            make_folder(path.parent)
            FaissFlat.build(self.store, normalise).save(path)
        return path

    def has_index(self, normalise: Normalise = "none") -> bool:
        """Whether there is a usable index, built from the rows that the store now holds."""
        try:
            self._index("flat", normalise)
        except IndexFileError:
            return False
        return True

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
                f"A query has shape {found}; the examples of '{self.store.path}' have {expected}. "
                "Give queries prepared as the data were (a leading axis counts the queries)."
            )
        return queries

    def _sketches(self, queries: _Checked) -> tuple[QuerySketches, list[int] | None]:
        if isinstance(queries, Batch | np.ndarray):
            return self.sketcher.queries(self.as_batch(queries), self.store.parameters), None
        rows = self.store.row_of(queries)
        return stored_queries(self.store, rows), rows.tolist()

    def _index(self, kind: Kind, normalise: Normalise) -> Index:
        if kind == "exact":
            return ExactIndex(self.store, normalise, self.device)
        from gradstore.search.faiss_flat import FaissFlat

        try:
            return FaissFlat.load(self._index_path(normalise), self.store)
        except IndexFileError as error:
            if self.store.set_suffix:
                error.add_note(f"The index is one for --parameters {self.store.parameters!r}: give index that option.")
            raise

    def _index_path(self, normalise: Normalise) -> Path:
        from gradstore.search.faiss_flat import stored_form

        return self.store.path / "indexes" / f"flat-{stored_form(normalise)}{self.store.set_suffix}.faiss"

    def _as_table(self, queries: _Checked, found: Neighbours) -> pa.Table:
        n_queries, k = found.indices.shape
        names = [str(q) for q in range(n_queries)] if isinstance(queries, Batch | np.ndarray) else queries
        rows = found.indices.reshape(-1)
        table = self.store.examples_at(rows)
        table = table.add_column(0, "rank", pa.array(np.tile(np.arange(1, k + 1), n_queries)))
        table = table.add_column(0, "query", pa.array([name for name in names for _ in range(k)], pa.string()))
        return table.append_column("score", pa.array(found.scores.reshape(-1)))


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


def _raw_batch(rows: Shaped[np.ndarray, "query ..."]) -> Batch:
    from gradstore.data.batch import as_inputs

    if np.issubdtype(rows.dtype, np.floating) and not np.isfinite(rows).all():
        raise QueryError("A query holds NaN or infinity. Clean it first.")
    return Batch(as_inputs(rows), None, example_keys(f"query-{row}" for row in range(len(rows))))
