"""The engine: one forward and one backward of a batch give every example's sketches and exact norms.

Tracked parameters require gradients, everything else is frozen; `capture` takes what flows in and out of each
operation that reads a tracked parameter, the operation's rule turns that into per-example gradients, and the sink
folds them away at once. Why not `vmap`: measured, `vmap(grad)` costs 1.5 to 20 plain training steps, this one or
less to two.

Several sets of parameters share the pass: a parameter is folded once, whatever the number of sets that hold it.

`GradientEngine.prepare` plans the routes and compares the engine with plain autograd on a few examples. It
must run before the first batch: a parameter that is also used where nobody sees it, a loss that mixes examples
or BatchNorm in training mode would otherwise give plausible wrong numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradstore.errors import LossShapeError, TrainingModeError
from gradstore.gradients import fallback
from gradstore.gradients.capture import (
    InputChangedError,
    Layouts,
    Operation,
    Recorder,
    UnseenOperationError,
    backward,
    plain_evaluation,
    record,
)
from gradstore.gradients.coverage import Coverage
from gradstore.gradients.forms import Form
from gradstore.gradients.layout import telling_batch
from gradstore.gradients.rules import NoRuleError
from gradstore.gradients.rules.apply import Completion
from gradstore.gradients.sink import GradientSink, Group, sum_of
from gradstore.sketch import CountSketch
from gradstore.task import Batch, Predicting, Task, tracked_parameters


@dataclass(frozen=True)
class SetGradients:
    """What the engine knows of a batch's gradients with respect to one set of parameters."""

    sketches: Float[Tensor, "example d_sketch"]
    sq_norms: Float[Tensor, " example"]
    """float64, exact; of the gradient averaged over the draws"""
    draw_sq_norms: Float[Tensor, " example"] | None
    """float64, mean over the draws of each draw's squared norm; None for a single draw"""
    layer_sq_norms: Float[Tensor, "example layer"]
    """float64, by layer (`GradientEngine.layers`); they sum to `sq_norms`"""


@dataclass(frozen=True)
class Gradients:
    """What the engine knows of a batch of examples."""

    sets: Mapping[str, SetGradients]
    """By name of the set, in the order asked for."""
    losses: Float[Tensor, " example"]
    latents: Float[Tensor, "example d_latent"]
    predictions: Float[Tensor, "example n_classes"] | None = None
    """float32 log-probabilities; None where the task has no `predict`"""


class GradientEngine:
    """Per-example gradients of `task`'s loss with respect to one or several sets of parameters."""

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        sets: str | Mapping[str, str],
        *,
        d_sketch: int,
        seed: int,
        n_draws: int = 1,
        coverage: Coverage | None = None,
    ) -> None:
        """Freeze and hook up `model` (it is put in eval mode).

        Args:
            sets: which parameters to track, name -> pattern (see `gradstore.task.tracked_parameters`); a pattern
                alone is a set of that name.
            d_sketch: length of a sketch.
            seed: of the projection and of the noise.
            n_draws: Monte Carlo draws that a stochastic loss is averaged over.
            coverage: routes planned earlier for the same task and sets; else call `prepare`.
        """
        self.task, self.model, self.seed, self.n_draws = task, model.eval(), seed, n_draws
        patterns = {sets: sets} if isinstance(sets, str) else dict(sets)
        chosen = {name: tracked_parameters(task, model, pattern) for name, pattern in patterns.items()}
        union = {name for parameters in chosen.values() for name in parameters}
        self.parameters = {name: p for name, p in model.named_parameters() if name in union}
        self._groups: dict[str, Group] = {
            name: tuple(s for s in chosen if name in chosen[s]) for name in self.parameters
        }
        self.layers = {s: _layers(parameters) for s, parameters in chosen.items()}
        self._recurrent = [module for module in model.modules() if isinstance(module, nn.RNNBase)]
        _let_cudnn_differentiate(self._recurrent)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        first = next(iter(self.parameters.values()))
        # Norms and sketches of half-precision models are summed in float32.
        self.dtype = first.dtype if first.dtype == torch.float64 else torch.float32
        self.projection = self._projection(d_sketch, stream=0)
        self.coverage = coverage or Coverage(())

    def use_stream(self, stream: int) -> None:
        """Project by another independent projection of the same seed; a store has one a checkpoint."""
        if stream != self.projection.stream:
            self.projection = self._projection(self.projection.d, stream)

    def _projection(self, d_sketch: int, stream: int) -> CountSketch:
        shapes = {name: tuple(p.shape) for name, p in self.parameters.items()}
        device = next(iter(self.parameters.values())).device
        return CountSketch(shapes, d_sketch, self.seed, stream=stream, device=device, dtype=self.dtype)

    def run(self, batch: Batch) -> Gradients:
        """Sketches, exact squared norms, losses, latents and predictions of a batch (on the model's device)."""
        losses, sink = self._collect_anyhow(batch)
        sets = {name: self._of_set(name, sink) for name in self.layers}
        return Gradients(sets, losses, self.latents(batch), self.predictions(batch))

    def latents(self, batch: Batch) -> Float[Tensor, "example d_latent"]:
        """The task's latents, each as one row."""
        with torch.no_grad(), plain_evaluation():
            return self.task.latent(self.model, batch).flatten(1)

    def predictions(self, batch: Batch) -> Float[Tensor, "example n_classes"] | None:
        """Log-probability of each class, float32; None where the task has no `predict`."""
        if not isinstance(self.task, Predicting):
            return None
        with torch.no_grad(), plain_evaluation():
            return self.task.predict(self.model, batch).float().log_softmax(dim=1)

    def collect(self, batch: Batch, coverage: Coverage | None = None) -> tuple[Float[Tensor, " example"], GradientSink]:
        """Losses, and the sink holding norms per parameter and the sketches; `coverage`: other routes than planned."""
        coverage = coverage or self.coverage
        sink = self.sink(len(batch))
        losses = self.by_rules(batch, sink, coverage)
        if vmapped := coverage.by("vmap"):
            fallback.emit(self.vmapped(vmapped, batch), sink, self.dtype)
        if looped := coverage.by("loop"):
            fallback.emit(self.looped(looped, batch), sink, self.dtype)
        return losses, sink

    def _collect_anyhow(self, batch: Batch) -> tuple[Float[Tensor, " example"], GradientSink]:
        """`collect`; examples that lead the model where no rule follows go one by one, this batch alone."""
        coverage = self.coverage
        while True:
            try:
                return self.collect(batch, coverage)
            except (NoRuleError, InputChangedError, UnseenOperationError) as error:
                coverage = coverage.moved(error.sources, "loop", str(error))

    def prepare(self, batch: Batch) -> Coverage:
        """Plan every parameter's route on a few examples and hold the result against plain autograd.

        Raises:
            LossShapeError, MixedExamplesError, TrainingModeError: the task breaks its contract.
            ProbeError: engine and autograd disagree although the task looks right.
        """
        from gradstore.gradients.probe import plan

        self.coverage = plan(self, batch)
        return self.coverage

    def sink(self, n_examples: int) -> GradientSink:
        """An empty sink for a batch."""
        return GradientSink(self.projection, self._groups, n_examples, n_draws=self.n_draws)

    def loss(self, batch: Batch) -> Float[Tensor, " example"]:
        """[B] losses averaged over the draws."""
        with plain_evaluation():
            return fallback.mean_loss(self.task, self.model, batch, self.seed, self.n_draws)

    def find_layouts(self, batch: Batch) -> tuple[Layouts, Sequence[Operation]]:
        """Run a forward pass that tells where every operation holds the examples; also gives the operations."""
        telling, period = telling_batch(self.model, batch)
        recorder = Recorder(self.parameters, len(telling), {}, period=period)
        record(self._recurrent, recorder, lambda: self._draw_loss(telling, 0))
        return recorder.layouts, recorder.operations

    def vmapped(self, names: list[str], batch: Batch) -> fallback.Pieces:
        """Full gradients of `names` by `vmap(grad)`."""
        return fallback.vmap_gradients(self.task, self.model, names, batch, self.seed, self.n_draws)

    def batched(self, names: list[str], batch: Batch) -> fallback.Pieces:
        """Full gradients of `names` by plain autograd over the batch, a loss at a time."""
        return fallback.batch_gradients(self.task, self.model, names, batch, self.seed, self.n_draws)

    def looped(self, names: list[str], batch: Batch) -> fallback.Pieces:
        """Full gradients of `names`, one example at a time."""
        return fallback.loop_gradients(self.task, self.model, names, batch, self.seed, self.n_draws)

    def refuse_training_mode(self) -> None:
        """BatchNorm on batch statistics and live dropout make a gradient depend on more than its example."""
        for name, module in self.model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or module.running_mean is None):
                raise TrainingModeError(
                    f"{type(module).__name__} {name!r} uses the statistics of the batch, so an example's gradient "
                    "would depend on its neighbours. Leave the model in eval mode (do not call model.train() in the "
                    "loss) and keep track_running_stats=True."
                )
            if isinstance(module, nn.modules.dropout._DropoutNd) and module.training:
                raise TrainingModeError(f"Dropout {name!r} is live. Do not call model.train() in the loss.")

    def check_losses(self, losses: object, batch: Batch) -> None:
        """One loss an example, or LossShapeError."""
        shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        if shape != (len(batch),):
            raise LossShapeError(
                f"loss returned {shape} for {len(batch)} examples; expected ({len(batch)},), one loss an example. "
                "Do not average over the batch: use reduction='none' and sum over the other axes."
            )

    def by_rules(self, batch: Batch, sink: GradientSink, coverage: Coverage) -> Float[Tensor, " example"]:
        """Losses averaged over the draws; gradients of the parameters that go by rules."""
        names = set(coverage.by("rule"))
        losses, found = [], list[dict[str, list[Form]]]()
        for draw in range(self.n_draws):
            if self.n_draws == 1:
                losses.append(self._capture(batch, draw, names, lambda name, forms: sink.take(name, [forms])))
            else:
                found.append({})
                losses.append(self._capture(batch, draw, names, found[-1].__setitem__))
        with torch.no_grad():
            for name in dict.fromkeys(name for of_draw in found for name in of_draw):
                sink.take(name, [of_draw.pop(name, []) for of_draw in found])
        return sum_of(losses) / self.n_draws

    def _capture(
        self, batch: Batch, draw: int, names: set[str], done: Callable[[str, list[Form]], None]
    ) -> Float[Tensor, " example"]:
        """Forward and backward; a way through the model that was never taken before is looked at first.

        Args:
            done: told each parameter's name and gradients, once.
        """
        try:
            return self._passes(batch, draw, names, done)
        except UnseenOperationError:
            layouts = {**self.find_layouts(batch)[0], **self.coverage.layouts}
            self.coverage = replace(self.coverage, layouts=layouts)
            return self._passes(batch, draw, names, done)

    def _passes(
        self, batch: Batch, draw: int, names: set[str], done: Callable[[str, list[Form]], None]
    ) -> Float[Tensor, " example"]:
        ignored = self.parameters.keys() - names
        recorder = Recorder(self.parameters, len(batch), dict(self.coverage.layouts), ignored)
        losses = record(self._recurrent, recorder, lambda: self._draw_loss(batch, draw))
        self.check_losses(losses, batch)
        completion = Completion(recorder.operations, names, len(batch), self.dtype, done)
        with torch.no_grad():
            backward(recorder, losses, completion.take)
        return losses.detach()

    def _draw_loss(self, batch: Batch, draw: int) -> Tensor:
        return fallback.draw_loss(self.task, self.model, batch, self.seed, draw)

    def _of_set(self, chosen: str, sink: GradientSink) -> SetGradients:
        names = [name for name, group in self._groups.items() if chosen in group]
        layers = [
            sum_of([sink.sq_norms[name] for name in names if _layer(name) == layer]) for layer in self.layers[chosen]
        ]
        return SetGradients(
            sketches=sink.sketch(chosen),
            sq_norms=sink.total_sq_norms(names),
            draw_sq_norms=sum_of([sink.draw_sq_norms[name] for name in names]) if self.n_draws > 1 else None,
            layer_sq_norms=torch.stack(layers, dim=1),
        )


def _let_cudnn_differentiate(recurrent: Sequence[nn.RNNBase]) -> None:
    """CuDNN's recurrent layers have no backward in eval mode; without dropout both modes are the same."""
    for module in recurrent:
        if any(p.is_cuda for p in module.parameters()):
            module.dropout = 0.0
            module.train()


def _layer(parameter: str) -> str:
    """The module that owns a parameter; a parameter of the model itself is a layer of its own."""
    return parameter.rpartition(".")[0] or parameter


def _layers(parameters: Mapping[str, nn.Parameter]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_layer(name) for name in parameters))
