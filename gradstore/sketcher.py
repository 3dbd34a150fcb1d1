"""Sketcher: evaluates examples with a store's own model, checkpoints, parameters, noise and projection.

The build and every later query go through here, so that a query's sketch can be compared with stored rows.

Why fixed blocks: float32 matrix products round differently for different batch sizes, so a row's bytes would
depend on `--batch-size`. Rows are therefore always evaluated in blocks of the store's own size, the last one
padded by repeating its last row; the batch size only says how many rows are read at a time. For the same
reason torch uses one thread here: more speed comes from more workers.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from gradstore.errors import StoreMismatchError
from gradstore.gradients import Coverage, GradientEngine, Gradients
from gradstore.models.checkpoints import Checkpoint, load_checkpoint
from gradstore.models.registry import task_from_settings, task_settings
from gradstore.search.rows import QuerySketches
from gradstore.task import Batch, Task


@dataclass(frozen=True, kw_only=True)
class SketchPlan:
    """Everything that an example's row depends on, besides the example. JSON in the store's manifest."""

    task: Mapping[str, Any]
    checkpoints: tuple[Checkpoint, ...]
    parameters: str
    d_sketch: int
    seed: int
    n_draws: int
    block: int
    coverage: Coverage
    projections: tuple[Mapping[str, Any], ...] = ()
    """How each checkpoint's sketches were made, as `CountSketch.describe` says it."""

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: getattr(self, name) for name in ("task", "parameters", "d_sketch", "seed", "n_draws", "block")},
            "checkpoints": [{**asdict(c), "path": str(c.path)} for c in self.checkpoints],
            "coverage": self.coverage.to_json(),
            "projections": [dict(projection) for projection in self.projections],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SketchPlan:
        checkpoints = tuple(Checkpoint(**{**c, "path": Path(c["path"])}) for c in data["checkpoints"])
        return cls(
            **{
                **data,
                "checkpoints": checkpoints,
                "coverage": Coverage.from_json(data["coverage"]),
                "projections": tuple(data["projections"]),
            }
        )


class Sketcher:
    """A model on a device, ready to evaluate examples at any checkpoint of a plan."""

    def __init__(self, plan: SketchPlan, folder: Path, device: str = "cpu", task: Task | None = None) -> None:
        """Build the model; weights are loaded when first asked for.

        Args:
            folder: relative checkpoint paths start here (the store).
            task: the task of `plan`, where it is at hand.
        """
        self.plan, self._folder, self.device = plan, folder, torch.device(device)
        self._task = task or task_from_settings(plan.task)
        self._model = self._task.build().to(self.device)
        self._loaded: int | None = None
        self.engine = GradientEngine(
            self._task,
            self._model,
            plan.parameters,
            d_sketch=plan.d_sketch,
            seed=plan.seed,
            n_draws=plan.n_draws,
            coverage=plan.coverage if plan.coverage.routes else None,
        )

    def load(self, checkpoint: int) -> None:
        """Put the weights of a checkpoint into the model."""
        if self._loaded != checkpoint:
            found = self.plan.checkpoints[checkpoint]
            load_checkpoint(self._model, Checkpoint(self._folder / found.path, found.learning_rate, found.sha256))
            self.engine.use_stream(checkpoint)
            self._require_same_projection(checkpoint)
            self._loaded = checkpoint

    def planned(self, batch: Batch) -> SketchPlan:
        """The plan with its routes, chosen and checked on a few examples at the last checkpoint, and projections."""
        projections = []
        for checkpoint in range(len(self.plan.checkpoints)):  # weights that do not fit are refused here
            self.load(checkpoint)
            projections.append(self.engine.projection.describe())
        coverage = self.engine.prepare(batch.to(self.device))
        self.plan = dataclasses.replace(self.plan, coverage=coverage, projections=tuple(projections))
        return self.plan

    def _require_same_projection(self, checkpoint: int) -> None:
        if not self.plan.projections:
            return
        expected, found = self.plan.projections[checkpoint], self.engine.projection.describe()
        if expected != found:
            raise StoreMismatchError(
                f"The store was made with the projection {dict(expected)}; this version of gradstore makes {found}. "
                "Their sketches cannot be compared: use the version that made the store, or build a new one."
            )

    def blocks(self, checkpoint: int, batch: Batch) -> Iterator[Gradients]:
        """Evaluate a batch that starts at a block boundary, a block at a time; tensors come back on the CPU."""
        self.load(checkpoint)
        for start in range(0, len(batch), self.plan.block):
            rows = batch[start : start + self.plan.block]
            with single_thread():
                found = self.engine.run(_padded(rows, self.plan.block).to(self.device))
            parts = (found.sketches, found.sq_norms, found.losses, found.latents)
            yield Gradients(*(part[: len(rows)].cpu() for part in parts))

    def gradients(self, checkpoint: int, batch: Batch) -> Gradients:
        """The blocks of a batch as one."""
        found = list(self.blocks(checkpoint, batch))
        columns = ([getattr(g, name) for g in found] for name in ("sketches", "sq_norms", "losses", "latents"))
        return Gradients(*(torch.cat(column) for column in columns))

    def queries(self, batch: Batch) -> QuerySketches:
        """Unit sketches and exact norms of query examples at every checkpoint."""
        found = [self.gradients(checkpoint, batch) for checkpoint in range(len(self.plan.checkpoints))]
        sketches = torch.stack([g.sketches for g in found]).numpy()
        return QuerySketches.from_sketches(sketches, torch.stack([g.sq_norms for g in found]).numpy())

    def latents(self, checkpoint: int, batch: Batch) -> Float[np.ndarray, "example d_latent"]:
        """Latents of query examples at one checkpoint."""
        return self.gradients(checkpoint, batch).latents.numpy()


def plan_for(task: Task, **settings: Any) -> SketchPlan:
    """A plan whose routes are not chosen yet (`Sketcher.engine.prepare` chooses them)."""
    return SketchPlan(task=task_settings(task), coverage=Coverage(()), **settings)


def _padded(rows: Batch, block: int) -> Batch:
    missing = block - len(rows)
    if missing == 0:
        return rows
    index = torch.cat([torch.arange(len(rows)), torch.full((missing,), len(rows) - 1)])
    return Batch(rows.inputs[index], None if rows.labels is None else rows.labels[index], rows.keys[index])


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Torch on one thread: sums are then taken in the same order on every machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
