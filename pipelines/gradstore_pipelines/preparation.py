"""Before a build: the data, the task and what is asked of it, with everything refused that can be refused early."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradstore.data import DataSummary, ExampleSource, load_batch, open_source, scan
from gradstore.errors import MissingLabelsError
from gradstore.models.checkpoints import Checkpoint, find_checkpoints
from gradstore.models.registry import make_task, task_settings
from gradstore.rehearsal import build_model, rehearse, saved_bytes
from gradstore.store.layout import MANIFEST
from gradstore.task import Batch, Task, require_distinct_sets
from gradstore_pipelines.progress import Reporter
from gradstore_pipelines.remembered import remembered_data
from gradstore_pipelines.settings import BuildSettings

_PROBE_EXAMPLES = 4


@dataclass(frozen=True)
class Prepared:
    """Data and model of a build, before anything long is started."""

    source: ExampleSource
    summary: DataSummary
    task: Task
    given: tuple[Checkpoint, ...]
    block: int
    """Rows evaluated together."""
    shard_rows: int


def prepare(settings: BuildSettings, reporter: Reporter) -> Prepared:
    """Open and scan the data, make the task, find given checkpoints: everything that can be refused early."""
    settings.resolved_device()  # refused before the data are read
    source, summary = remembered_data(settings) or _scanned(settings, reporter)
    task = make_task(settings.model, summary, source.example_shape)
    if task.needs_labels and source.label_names is None:
        raise MissingLabelsError(
            f"--model {settings.model} needs labels and '{settings.source}' has none. Pass --labels FILE, put images "
            "into one sub-folder a class, or use --model vae, which needs none."
        )
    given = find_checkpoints(settings.checkpoints, settings.learning_rate) if settings.checkpoints else []
    absolute = tuple(dataclasses.replace(c, path=c.path.absolute()) for c in given)
    block = _tried_out(settings, source, task)
    return Prepared(source, summary, task, absolute, block, settings.rows_a_shard(len(source), block))


def _tried_out(settings: BuildSettings, source: ExampleSource, task: Task) -> int:
    """Run the task's own code once on a few examples, unless there is a store already: what fails is refused before
    anything long is started. Returns the rows to evaluate together.

    Raises:
        ParametersError: a set of parameters that names none, or the same as another.
        TaskError: building the model, its loss or its latent fails.
    """
    begun = settings.begun_block()
    if begun is not None and settings.place.exists(MANIFEST):
        return begun
    device = settings.resolved_device()
    model, batch = build_model(task).to(device), probe_batch(source).to(device)
    require_distinct_sets(task, model, settings.parameters)
    rehearse(task, model, batch, settings.seed)
    return begun or settings.block(len(source), saved_bytes(task, model, batch, settings.seed))


def request(settings: BuildSettings, prepared: Prepared) -> dict[str, Any]:
    """Everything that determines the store's bytes, as JSON.

    Where nothing is asked that format 1 did not know, in its words: what it began is then finished.
    """
    summary, sets = prepared.summary, settings.parameters
    return {
        "data": {
            "content": summary.content_hash,
            "n_examples": summary.n_examples,
            "example_shape": list(summary.example_shape),
            "dtype": summary.dtype,
        },
        "model": task_settings(prepared.task),
        "training": settings.training(),
        "checkpoints": [{"sha256": c.sha256, "learning_rate": c.learning_rate} for c in prepared.given] or None,
        **{name: getattr(settings, name) for name in ("sketch_dim", "draws", "seed")},
        "parameters": list(sets) if len(sets) > 1 else sets[0],
        **({"per_layer_norms": True} if settings.per_layer_norms else {}),
        **({"sketch_dtype": settings.sketch_dtype} if settings.sketch_dtype != "float16" else {}),
        "shard_rows": prepared.shard_rows,
        "block": prepared.block,
    }


def probe_batch(source: ExampleSource) -> Batch:
    """A few examples spread over the data."""
    n = min(_PROBE_EXAMPLES, len(source))
    return load_batch(source, np.linspace(0, len(source) - 1, n).astype(np.int64))


def _scanned(settings: BuildSettings, reporter: Reporter) -> tuple[ExampleSource, DataSummary]:
    """Open the data and read them once."""
    source = open_source(
        settings.source, labels=settings.labels, image_size=settings.image_size, on_corrupt=settings.on_corrupt
    )
    for note in source.notes():
        reporter.say(note)
    with reporter.task("scan", len(source), "rows") as advance:
        return source, scan(source, advance)
