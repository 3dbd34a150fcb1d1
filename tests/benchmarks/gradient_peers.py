"""What other packages do with the same model, loss and batch; each is timed where it is installed.

Install them apart from gradstore, for example with `pip install --no-deps --target DIR captum traker dattri tqdm
matplotlib …` and DIR on PYTHONPATH.

captum: `TracInCP.self_influence`, which gives norms and no sketch. It wants `model(inputs)` and a loss function of
outputs and labels, which an ELBO is not. So the model it sees returns one loss an example, and its loss function is
None: captum then differentiates the outputs themselves. The batch's labels and noise keys are closed over. It has
two ways: one backward an example, for any layer; and `sample_wise_grads_per_batch`, for Linear and Conv2d alone,
which leaves other layers' parameters out of the norm. Both are shown, the second with the share that it covers.

traker and dattri: their random projections (Rademacher, the same k, otherwise their defaults) of `vmap(grad)`
gradients, as their pipelines compute them. Norms are not counted.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from tests.benchmarks.gradient_methods import SEED, Case, Losses, Method, Step, vmap_gradients
else:  # run as a script: the folder of the script is on the path, the repository is not
    from gradient_methods import SEED, Losses, vmap_gradients


class SkippedError(Exception):
    """A peer cannot do a case; the message says why."""


@dataclass(frozen=True)
class Peer:
    """A row of the table."""

    package: str
    what: str
    method: Method

    def title(self) -> str:
        """What the table calls it, with its version.

        Raises:
            SkippedError: it is not installed.
        """
        try:
            return f"{self.package} {version(self.package)} {self.what}"
        except PackageNotFoundError:
            raise SkippedError(f"{self.package} is left out: it is not installed") from None


def captum_loop(case: Case) -> Step:
    """One backward an example."""
    model = case.model()
    case.tracked(model)
    layers = None if case.benchmark.parameters == "all" else ["model.encoder"]
    return _captum(case, model, layers, sample_wise=False)


def captum_sample_wise(case: Case) -> Step:
    """One backward for all, Linear and Conv2d alone."""
    model = case.model()
    tracked = case.tracked(model)
    modules = {name.rpartition(".")[0] for name in tracked}
    covered = [name for name in sorted(modules) if type(model.get_submodule(name)) in (nn.Linear, nn.Conv2d)]
    if not covered:
        raise SkippedError("it knows Linear and Conv2d alone")
    n_covered = sum(p.numel() for name, p in tracked.items() if name.rpartition(".")[0] in covered)
    share = n_covered / sum(p.numel() for p in tracked.values())
    if share < 1.0:
        case.notes.append(f"captum's sample-wise norms cover {share:.2%} of the parameters")
    return _captum(case, model, [f"model.{name}" for name in covered], sample_wise=True)


class _LossesOfInputs(nn.Module):
    """`Losses` of the case's own labels and keys: captum hands over the inputs alone."""

    def __init__(self, case: Case, model: nn.Module) -> None:
        super().__init__()
        self.model, self._losses, self._batch = model, [Losses(case, model)], case.batch

    def forward(self, inputs: Tensor) -> Tensor:
        losses: Tensor = self._losses[0](inputs, self._batch.labels, self._batch.keys)
        return losses


def _captum(case: Case, model: nn.Module, layers: list[str] | None, *, sample_wise: bool) -> Step:
    examples = (case.batch.inputs, None)  # the last entry stands for labels
    tracin: Any = import_module("captum.influence").TracInCP(
        _LossesOfInputs(case, model),
        torch.utils.data.TensorDataset(case.batch.inputs),
        checkpoints=["the weights as they are"],
        checkpoints_load_func=lambda model, checkpoint: 1.0,
        layers=layers,
        sample_wise_grads_per_batch=sample_wise,
    )

    def step() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tracin.self_influence(examples)

    return step


def traker(case: Case) -> Step:
    """TRAK's projector: `BasicProjector`, what TRAKer takes without its CUDA kernel."""
    projectors: Any = import_module("trak.projectors")
    projector = projectors.BasicProjector(
        grad_dim=_n_tracked(case),
        proj_dim=case.d_sketch,
        seed=SEED,
        proj_type=projectors.ProjectionType.rademacher,
        device=case.device,
        dtype=case.dtype,
    )
    gradients = vmap_gradients(case)
    return lambda: [projector.project(_flat(part), model_id=0) for part in gradients()]


def dattri(case: Case) -> Step:
    """The projector that `random_project` picks for the device."""
    gradients = vmap_gradients(case)
    example = torch.empty(1, _n_tracked(case), device=case.device, dtype=case.dtype)
    project: Any = import_module("dattri.func.projection").random_project(
        example, 1, case.d_sketch, 32, proj_seed=SEED, proj_type="rademacher", device=case.device
    )
    return lambda: [project(_flat(part)) for part in gradients()]


def _n_tracked(case: Case) -> int:
    return sum(p.numel() for p in case.tracked(case.model()).values())


def _flat(gradients: dict[str, Tensor]) -> Tensor:
    return torch.cat([gradient.flatten(1) for gradient in gradients.values()], dim=1)


PEERS = (
    Peer("captum", "TracInCP.self_influence (norms alone)", captum_loop),
    Peer("captum", "the same, sample_wise_grads_per_batch", captum_sample_wise),
    Peer("traker", "BasicProjector on vmap(grad)", traker),
    Peer("dattri", "random_project on vmap(grad)", dattri),
)
