"""The engine: one forward and one backward of a batch give every example's sketch and exact norm.

Tracked parameters require gradients, everything else is frozen; `capture` takes what flows in and out of each
tracked module, the layer's rule turns that into per-example gradients, and the sink folds them away at once.
Why hooks and not `vmap`: measured, `vmap(grad)` costs 1.5 to 20 plain training steps, this one to two.

`GradientEngine.prepare` plans the routes and compares the engine with plain autograd on a few examples. It
must run before the first batch: a parameter that is also used outside its module, a loss that mixes examples
or BatchNorm in training mode would otherwise give plausible wrong numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gradstore.errors import LossShapeError, TrainingModeError
from gradstore.gradients import fallback
from gradstore.gradients.capture import Call, capture
from gradstore.gradients.coverage import Coverage, Route
from gradstore.gradients.rules import Emit, NoRuleError, rule_for
from gradstore.gradients.sink import GradientSink
from gradstore.sketch import CountSketch
from gradstore.task import Batch, Task, tracked_parameters


@dataclass(frozen=True)
class Gradients:
    """What the engine knows of a batch of examples."""

    sketches: Float[Tensor, "example d_sketch"]
    sq_norms: Float[Tensor, " example"]  # float64, exact
    losses: Float[Tensor, " example"]
    latents: Float[Tensor, "example d_latent"]


class GradientEngine:
    """Per-example gradients of `task`'s loss with respect to the parameters that `pattern` names."""

    def __init__(
        self,
        task: Task,
        model: nn.Module,
        pattern: str,
        *,
        d_sketch: int,
        seed: int,
        n_draws: int = 1,
        coverage: Coverage | None = None,
    ) -> None:
        """Freeze and hook up `model` (it is put in eval mode).

        Args:
            pattern: which parameters to track, see `gradstore.task.tracked_parameters`.
            d_sketch: length of a sketch.
            seed: of the projection and of the noise.
            n_draws: Monte Carlo draws that a stochastic loss is averaged over.
            coverage: routes planned earlier for the same task and pattern; else call `prepare`.
        """
        self.task, self.model, self.seed, self.n_draws = task, model.eval(), seed, n_draws
        self.parameters = tracked_parameters(task, model, pattern)
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)
        first = next(iter(self.parameters.values()))
        # Norms and sketches of half-precision models are summed in float32.
        self.dtype = first.dtype if first.dtype == torch.float64 else torch.float32
        self.projection = self._projection(d_sketch, stream=0)
        self.coverage = coverage or self._static_coverage()

    def use_stream(self, stream: int) -> None:
        """Project by another independent projection of the same seed; a store has one a checkpoint."""
        if stream != self.projection.stream:
            self.projection = self._projection(self.projection.d, stream)

    def _projection(self, d_sketch: int, stream: int) -> CountSketch:
        shapes = {name: tuple(p.shape) for name, p in self.parameters.items()}
        device = next(iter(self.parameters.values())).device
        return CountSketch(shapes, d_sketch, self.seed, stream=stream, device=device, dtype=self.dtype)

    def run(self, batch: Batch) -> Gradients:
        """Sketches, exact squared norms, losses and latents of a batch (on the model's device)."""
        losses, sink = self.collect(batch)
        with torch.no_grad():
            latents = self.task.latent(self.model, batch).flatten(1)
        return Gradients(sink.sketch.result(), sink.total_sq_norms(), losses, latents)

    def collect(self, batch: Batch) -> tuple[Float[Tensor, " example"], GradientSink]:
        """Losses, and the sink holding norms per parameter and the sketch."""
        sink = GradientSink(self.projection.buffer(len(batch)), len(batch))
        modules = self._modules()
        losses, calls = capture(
            list(modules), lambda: self.loss(batch), lambda losses: self.check_losses(losses, batch)
        )
        with torch.no_grad():
            for module, names in modules.items():
                if calls[module]:
                    self._apply_rule(module, calls[module], Emit(names, sink, self.dtype))
        if vmapped := self.coverage.by("vmap"):
            fallback.emit(self.vmapped(vmapped, batch), sink, self.dtype)
        if looped := self.coverage.by("loop"):
            fallback.emit(self.looped(looped, batch), sink, self.dtype)
        for name in self.parameters:
            sink.sq_norms.setdefault(name, torch.zeros(len(batch), dtype=torch.float64, device=losses.device))
        return losses, sink

    def prepare(self, batch: Batch) -> Coverage:
        """Plan every parameter's route on a few examples and hold the result against plain autograd.

        Raises:
            LossShapeError, MixedExamplesError, TrainingModeError: the task breaks its contract.
            ProbeError: engine and autograd disagree although the task looks right.
        """
        from gradstore.gradients.probe import plan

        self.coverage = plan(self, batch)
        return self.coverage

    def loss(self, batch: Batch) -> Float[Tensor, " example"]:
        """[B] losses averaged over the draws."""
        return fallback.mean_loss(self.task, self.model, batch, self.seed, self.n_draws)

    def vmapped(self, names: list[str], batch: Batch) -> fallback.Pieces:
        """Full gradients of `names` by `vmap(grad)`."""
        return fallback.vmap_gradients(self.task, self.model, names, batch, self.seed, self.n_draws)

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

    def names_of(self, module: nn.Module) -> list[str]:
        """Full names of the tracked parameters that `module`'s rule reports."""
        return list(self._modules().get(module, {}).values())

    def _static_coverage(self) -> Coverage:
        owners = _owners(self.model)
        routes = []
        for name, parameter in self.parameters.items():
            owner = owners[id(parameter)]
            known = rule_for(self.model.get_submodule(owner[0].rpartition(".")[0])) if len(owner) == 1 else None
            reason = "shared by several modules" if len(owner) > 1 else "no rule for its module"
            how, detail = ("rule", known[0]) if known else ("vmap", reason)
            routes.append(Route(name, parameter.numel(), how, detail))  # type: ignore[arg-type]
        return Coverage(tuple(routes))

    def _modules(self) -> dict[nn.Module, dict[str, str]]:
        """The modules whose rule is used, each with local and full names of its tracked parameters."""
        modules: dict[nn.Module, dict[str, str]] = {}
        for name in self.coverage.by("rule"):
            prefix, _, local = name.rpartition(".")
            modules.setdefault(self.model.get_submodule(prefix), {})[local] = name
        return modules

    def _apply_rule(self, module: nn.Module, calls: list[Call], emit: Emit) -> None:
        known = rule_for(module)
        if known is None:
            raise NoRuleError(f"{type(module).__name__} has no rule")
        try:
            known[1](module, calls, emit)
        except NoRuleError as error:
            error.parameters = emit.full_names  # the planner sends them to the fallback
            raise


def _owners(model: nn.Module) -> dict[int, list[str]]:
    """All names under which each parameter is reached."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return names
