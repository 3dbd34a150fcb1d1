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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from gradstore.errors import DeviceError, GradstoreError, StoreMismatchError
from gradstore.gradients import Coverage, GradientEngine, Gradients
from gradstore.gradients.coverage import How
from gradstore.gradients.engine import SetGradients
from gradstore.gradients.timing import time_shares
from gradstore.models.checkpoints import Checkpoint, load_checkpoint
from gradstore.models.registry import task_from_settings, task_settings
from gradstore.rehearsal import blaming, build_model, rehearse
from gradstore.search.rows import QuerySketches
from gradstore.task import Batch, Task

if TYPE_CHECKING:
    from gradstore.store import Store

_Combine = Callable[[Sequence[Tensor]], Tensor]


@dataclass(frozen=True, kw_only=True)
class SketchPlan:
    """Everything that an example's row depends on, besides the example. JSON in the store's manifest."""

    task: Mapping[str, Any]
    checkpoints: tuple[Checkpoint, ...]
    parameters: tuple[str, ...]
    """the sets of parameters, each named by its pattern"""
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
        parameters = data["parameters"]
        return cls(
            **{
                **data,
                "checkpoints": checkpoints,
                "parameters": (parameters,) if isinstance(parameters, str) else tuple(parameters),  # format 1: one
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
        self._model = build_model(self._task).to(self.device)
        self._loaded: int | None = None
        self._rows_at_once = plan.block
        self.engine = GradientEngine(
            self._task,
            self._model,
            {name: name for name in plan.parameters},
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
        batch = batch.to(self.device)
        rehearse(self._task, self._model, batch, self.plan.seed)
        coverage = self.engine.prepare(batch)
        self.plan = dataclasses.replace(self.plan, coverage=coverage, projections=tuple(projections))
        return self.plan

    def time_shares(self, batch: Batch) -> Mapping[How, float]:
        """Which share of the time each way of taking gradients has, on a few examples."""
        with single_thread():
            return time_shares(self.engine, batch.to(self.device))

    def _require_same_projection(self, checkpoint: int) -> None:
        if not self.plan.projections:
            return
        expected, found = self.plan.projections[checkpoint], self.engine.projection.describe()
        if expected != found:
            raise StoreMismatchError(
                f"The store was made with the projection {dict(expected)}; this version of gradstore makes {found}. "
                "Their sketches cannot be compared: use the version that made the store, or build a new one."
            )

    def blocks(self, checkpoint: int, batches: Iterable[Batch]) -> Iterator[Gradients]:
        """Evaluate batches that start at block boundaries, a block at a time; tensors come back on the CPU.

        A GPU computes a block while the one before is copied and the next is read: nothing waits for it but the
        results that are handed over.

        Raises:
            TaskError: the task's own code fails on these examples.
        """
        self.load(checkpoint)
        copying: _Copying | None = None
        for batch in batches:
            for rows, padded in self._padded_blocks(batch):
                following = _Copying.start(self._run(padded), len(rows))
                if copying is not None:
                    yield copying.wait()
                copying = following
        if copying is not None:
            yield copying.wait()

    def gradients(self, checkpoint: int, batch: Batch) -> Gradients:
        """The blocks of a batch as one."""
        return _joined(list(self.blocks(checkpoint, [batch])))

    def queries(self, batch: Batch, parameters: str | None = None) -> QuerySketches:
        """Unit sketches and exact norms of query examples at every checkpoint.

        Args:
            parameters: the set of parameters; the first by default.
        """
        name = self.plan.parameters[0] if parameters is None else parameters
        found = [self.gradients(checkpoint, batch).sets[name] for checkpoint in range(len(self.plan.checkpoints))]
        sketches = torch.stack([g.sketches for g in found]).numpy()
        return QuerySketches.from_sketches(sketches, torch.stack([g.sq_norms for g in found]).numpy())

    def latents(self, checkpoint: int, batch: Batch) -> Float32[np.ndarray, "example d_latent"]:
        """Latents of query examples at one checkpoint; no loss is computed, so that no label is needed."""
        self.load(checkpoint)
        found = []
        for rows, padded in self._padded_blocks(batch):
            with single_thread(), blaming(self._task, "latent"):
                found.append(self.engine.latents(padded)[: len(rows)].float().cpu())
        return torch.cat(found).numpy()

    def n_classes(self, batch: Batch) -> int | None:
        """Width of the predictions, seen on a few examples; None where the task has no `predict`."""
        found = self.engine.predictions(batch.to(self.device))
        return None if found is None else found.shape[1]

    def _padded_blocks(self, batch: Batch) -> Iterator[tuple[Batch, Batch]]:
        """Each block as it is, and padded, on the device."""
        for start in range(0, len(batch), self.plan.block):
            rows = batch[start : start + self.plan.block]
            yield rows, _padded(rows, self.plan.block).to(self.device)

    def _run(self, block: Batch) -> Gradients:
        """The whole block, or, where the device's memory does not hold it, halves: from then on for all blocks."""
        step = min(self._rows_at_once, len(block))
        try:
            return _joined([self._run_part(block[start : start + step]) for start in range(0, len(block), step)])
        except torch.OutOfMemoryError as error:
            if step == 1:
                raise DeviceError(
                    f"The memory of {self.device} does not hold the gradients of a single example. Use --device cpu, "
                    "a device with more memory, or track fewer --parameters."
                ) from error
        torch.cuda.empty_cache()
        self._rows_at_once = -(-step // 2)
        return self._run(block)

    def _run_part(self, block: Batch) -> Gradients:
        with single_thread():
            try:
                return self.engine.run(block)
            except (GradstoreError, torch.OutOfMemoryError):
                raise
            except Exception:
                rehearse(self._task, self._model, block, self.plan.seed)  # is it the task's own error? then it says so
                raise


def plan_for(task: Task, **settings: Any) -> SketchPlan:
    """A plan whose routes are not chosen yet (`Sketcher.engine.prepare` chooses them)."""
    return SketchPlan(task=task_settings(task), coverage=Coverage(()), **settings)


def sketcher_of(store: Store, device: str = "cpu", task: Task | None = None) -> Sketcher:
    """The sketcher of a store: its model, its checkpoints, its projection.

    Checkpoints that lie with a store in a bucket are fetched into the cache first.

    Args:
        task: the store's, where it is at hand.

    Raises:
        StoreCorruptError: a checkpoint in the bucket is not the one that the store was made with.
        FileNotFoundError: it is not there.
    """
    plan = SketchPlan.from_json(store.manifest.settings["plan"])
    if store.place.local() is None:
        here = tuple(_fetched(store, checkpoint) for checkpoint in plan.checkpoints)
        plan = dataclasses.replace(plan, checkpoints=here)
    return Sketcher(plan, store.folder, device, task)


def _fetched(store: Store, checkpoint: Checkpoint) -> Checkpoint:
    """With its path on this machine; an absolute one is."""
    if checkpoint.path.is_absolute():
        return checkpoint
    return dataclasses.replace(checkpoint, path=store.local_file(checkpoint.path.as_posix(), checkpoint.sha256))


@dataclass(frozen=True)
class _Copying:
    """Gradients on their way to main memory."""

    gradients: Gradients
    done: torch.cuda.Event | None

    @classmethod
    def start(cls, found: Gradients, n: int) -> _Copying:
        """Of the first n examples. From a GPU into pinned memory, without waiting."""
        if not found.losses.is_cuda:
            return cls(_combined([found], lambda parts: parts[0][:n]), None)
        copied = _combined([found], lambda parts: _pinned_copy(parts[0][:n]))
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(torch.cuda.current_stream(found.losses.device))
        return cls(copied, done)

    def wait(self) -> Gradients:
        if self.done is not None:
            self.done.synchronize()
        return self.gradients


def _pinned_copy(values: Tensor) -> Tensor:
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)


def _joined(blocks: Sequence[Gradients]) -> Gradients:
    """Consecutive blocks as one."""
    if len(blocks) == 1:
        return blocks[0]
    return _combined(blocks, lambda parts: torch.cat(list(parts)))


def _combined(blocks: Sequence[Gradients], combine: _Combine) -> Gradients:
    sets = {name: _combined_set([block.sets[name] for block in blocks], combine) for name in blocks[0].sets}
    predictions = [b.predictions for b in blocks if b.predictions is not None]
    return Gradients(
        sets=sets,
        losses=combine([b.losses for b in blocks]),
        latents=combine([b.latents for b in blocks]),
        predictions=combine(predictions) if predictions else None,
    )


def _combined_set(parts: Sequence[SetGradients], combine: _Combine) -> SetGradients:
    draws = [part.draw_sq_norms for part in parts if part.draw_sq_norms is not None]
    return SetGradients(
        sketches=combine([part.sketches for part in parts]),
        sq_norms=combine([part.sq_norms for part in parts]),
        draw_sq_norms=combine(draws) if draws else None,
        layer_sq_norms=combine([part.layer_sq_norms for part in parts]),
    )


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
