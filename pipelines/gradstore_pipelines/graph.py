"""`graph`: the k nearest examples of every example of a store, resumable at the shard.

    plan -> cells, where there are too many rows to compare all -> a shard a unit -> recall, measured on a sample

Seconds of processor time on one thread, k = 10, 512 coordinates (60 GFLOP/s of bare float32 products):

    examples                                      exact              cells, .95 asked       recall, measured
    20,000 gradients of Fashion-MNIST             13                 8, 4 % compared        .953
    100,000 around ten directions, 1/j decay      225 (one unit x 12) 48, 1 % compared      .974

`exact` forms N² x width products and takes 1.35 times what they take alone; cells take a fifth of that at 100,000, and
a smaller share the more examples there are. Hence `auto`: all with all up to 65,536 examples, which is minutes; cells
above. A million is not measured: 10 to 20 minutes by these figures, for data in which few cells are enough.

Memory beyond the libraries: 210 MB at 20,000, 350 MB at 100,000. The growth is pages of mapped files, which the system
may take back.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from gradstore.errors import QueryError, StoreMismatchError
from gradstore.search.cells import Cells, build_cells
from gradstore.search.graph import GraphCard, GraphFiles, GraphPlan, KnnGraph, Method, fingerprint_of, space_of
from gradstore.search.nearest import nearest_points
from gradstore.search.space import Metric
from gradstore.store import Store
from gradstore_pipelines.executors import executor_for
from gradstore_pipelines.graph_settings import GraphSettings
from gradstore_pipelines.progress import Reporter, Silent
from gradstore_pipelines.stages.graph import GraphStage
from gradstore_pipelines.where import Where

_EXACT_UP_TO = 65_536
_SAMPLE = 256
_SEED = 1  # another sample than the one by which the number of cells was chosen


@dataclass(frozen=True)
class GraphResult:
    """What a run did."""

    graph: KnnGraph
    folder: Path
    shards: int
    """made by this run; 0 when everything was there already"""


@dataclass(frozen=True)
class GraphEstimate:
    """What a run would do, and the room it needs."""

    plan: GraphPlan
    graph_bytes: int
    """kept"""
    copy_bytes: int
    """while it is built"""


def build_graph(settings: GraphSettings, reporter: Reporter | None = None) -> GraphResult:
    """Make the graph of a store, finish one, or find it finished.

    Raises:
        QueryError: k, a metric or checkpoints that the store cannot answer.
        StoreIncompleteError: the store's build has not finished.
        StoreMismatchError: a graph of other settings is there.
        StoreWriteError: disk full or no permission; what is done is kept.
    """
    reporter = reporter or Silent()
    store, plan, device = _store(settings), plan_of(settings), settings.resolved_device()
    files = GraphFiles(store, plan.space)
    _claim(files, plan, settings, reporter)
    card, pending = files.card(plan), sum(1 for _ in files.pending(plan))
    if card is None:
        if pending:
            _find(files, plan, device, settings.workers, pending, reporter)
        card = _card(files, plan, device)
        files.finish(card)
    return GraphResult(KnnGraph(files, plan, card), files.folder, pending)


def estimate_graph(settings: GraphSettings) -> GraphEstimate:
    """What `build_graph` would do; writes nothing."""
    plan, store = plan_of(settings), _store(settings)
    number = 2 if plan.space == "gradient" else 4
    copy = plan.n_examples * (space_of(store, plan).width() * number + 4) if plan.method == "cells" else 0
    return GraphEstimate(plan, plan.n_examples * plan.k * 12, copy)


def plan_of(settings: GraphSettings) -> GraphPlan:
    """The settings on this store, with everything chosen that they leave open.

    Raises:
        QueryError: k, a metric or checkpoints that the store cannot answer.
        StoreIncompleteError: the store's build has not finished.
    """
    store = _store(settings)
    store.require_complete()
    if settings.k >= store.n_examples:
        raise QueryError(
            f"k={settings.k} is more than the {store.n_examples - 1} others of {store.location}; ask for less."
        )
    method = _method(settings.method, store.n_examples)
    plan = GraphPlan(
        space=settings.space,
        metric=_metric(settings),
        checkpoints=settings.checkpoint or tuple(range(store.n_checkpoints)),
        k=settings.k,
        method=method,
        recall=1.0 if method == "exact" else settings.recall,
        n_examples=store.n_examples,
        shard_rows=store.manifest.shard_rows,
        fingerprint=fingerprint_of(store, settings.space),
    )
    return GraphPlan(**{**vars(plan), "checkpoints": space_of(store, plan).checkpoints})


def _store(settings: GraphSettings) -> Store:
    store = Store.open(settings.store)
    return store if settings.parameters is None else store.of_set(settings.parameters)


def _method(asked: Literal["auto", "exact", "cells"], n_examples: int) -> Method:
    if asked == "auto":
        return "exact" if n_examples <= _EXACT_UP_TO else "cells"
    return asked


def _metric(settings: GraphSettings) -> Metric:
    """Gradients are directions; latents are points unless told otherwise."""
    return settings.metric or ("cosine" if settings.space == "gradient" else "l2")


def _claim(files: GraphFiles, plan: GraphPlan, settings: GraphSettings, reporter: Reporter) -> None:
    """Begin, go on with what was begun by the same plan, or refuse what was not."""
    begun = files.plan()
    if begun == plan:
        return
    if begun is not None and begun.fingerprint != plan.fingerprint:
        reporter.say(f"The graph at {files.folder} is of other rows than the store now holds: it is made anew.")
    elif begun is not None and not settings.overwrite:
        raise StoreMismatchError(
            f"The graph at {files.folder} has {'; '.join(begun.differences(plan))}. "
            "Ask for the same, or pass --overwrite."
        )
    files.begin(plan)


def _find(files: GraphFiles, plan: GraphPlan, device: str, workers: int, pending: int, reporter: Reporter) -> None:
    store = files.store
    if plan.method == "cells" and not Cells.are_at(files.cells):
        shutil.rmtree(files.cells, ignore_errors=True)
        with reporter.task("cells", 2 * plan.n_examples, "rows") as advance:
            cells = build_cells(space_of(store, plan), files.cells, plan.k, plan.recall, advance)
        reporter.say(f"{cells.n_probes} of {cells.n_cells} cells hold {plan.recall:.0%} of the nearest {plan.k}.")
    left = sum(len(store.shard_range(shard)) for shard in files.pending(plan))
    stage = GraphStage(store.location, store.parameters, plan.space, device)
    executor = executor_for(Where(workers=min(workers, pending)), device=device)
    executor.run(stage, reporter, total=plan.n_examples, done=plan.n_examples - left)


def _card(files: GraphFiles, plan: GraphPlan, device: str) -> GraphCard:
    """Recall of a sample of rows against the exact search. Rows as near as the k-th neighbour count as found."""
    space, n = space_of(files.store, plan), plan.n_examples
    rows = np.sort(np.random.default_rng(_SEED).choice(n, min(_SAMPLE, n), replace=False))
    queries = space.points_at(rows, asking=True, device=device)
    _, true = nearest_points(space, queries, plan.k, exclude=rows.tolist())
    compared = 1.0
    if plan.method == "cells":
        cells = Cells.open(files.cells)
        compared = cells.n_probes / cells.n_cells
    unmeasured = GraphCard(plan=plan.digest(), recall=0.0, sampled=len(rows), compared=compared)
    _, found = KnnGraph(files, plan, unmeasured).rows_at(rows, with_forgotten=True)
    recall = float((found <= true[:, -1:].astype(np.float32)).mean())
    return GraphCard(plan=plan.digest(), recall=recall, sampled=len(rows), compared=compared)
