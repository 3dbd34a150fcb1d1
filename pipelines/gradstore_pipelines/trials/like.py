"""Other data through the pipeline of a store: the same model, training, parameters, projection and draws.

Why at least so many steps of training: a sample is smaller than the data, and as many epochs over it are fewer steps; a
model that has hardly begun is another model. So the epochs are those of the store, but never so few that they make less
than 1,200 steps, unless the store's own training was shorter. Measured on 10,000 pictures of Fashion-MNIST (15 epochs,
1,185 steps; rotated, dead rows, noise), by how much the ROC-AUC of 18 signals on samples of 2,000 is off that on all
10,000, mean of the absolute differences with two seeds:

    15 epochs, 240 steps       .065  .057
    30 epochs, 480 steps       .044  .043
    75 epochs, 1,200 steps     .029  .031     which is about what 40 planted examples leave to luck

Where a store was made of given checkpoints, those are used, and nothing is trained: what is planted is then new to the
model, as it is not to one that is trained on it.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradstore.errors import CheckpointError
from gradstore.models.checkpoints import Checkpoint, file_sha256, find_checkpoints
from gradstore.sketcher import SketchPlan
from gradstore.store import Store
from gradstore.store.files import make_folder, write_errors
from gradstore_pipelines.settings import BuildSettings

_FEWEST_STEPS = 1_200
_SEEDS = 2**63


def settings_like(
    store: Store, data: Path, folder: Path, *, n_examples: int, device: str, repeat: int
) -> BuildSettings:
    """Settings of a build of `data` as `store` was built of its own.

    Args:
        store: read for the set of parameters that is tracked.
        data: what is built from.
        folder: where to.
        n_examples: of `data`.
        repeat: 0 is trained from the store's own seed, others from other seeds.

    Raises:
        CheckpointError: the weights that the store was made with are gone, or others.
    """
    manifest, plan = store.manifest, SketchPlan.from_json(store.manifest.settings["plan"])
    return BuildSettings(
        source=data,
        store=folder,
        model=str(manifest.provenance["model"]),
        parameters=(store.parameters,),
        sketch_dim=store.d_sketch,
        sketch_dtype=manifest.sketch_dtype,
        draws=manifest.n_draws,
        per_layer_norms=manifest.layers is not None,
        device=device,
        seed=(plan.seed + repeat) % _SEEDS,
        **_weights(store, plan, n_examples, folder.with_name("weights")),
    )


def training_of(store: Store) -> Mapping[str, Any] | None:
    """How the store's model was trained; None where checkpoints were given."""
    found: Mapping[str, Any] | None = store.manifest.settings["request"]["training"]
    return found


def n_trained(store: Store) -> int:
    """How many of the store's checkpoints are of its training: others were given, or appended."""
    training = training_of(store)
    return 0 if training is None else int(training["n_checkpoints"])


def epochs_on(training: Mapping[str, Any], n_stored: int, n_examples: int) -> int:
    """Epochs over `n_examples` that stand for those of a training over `n_stored`.

    >>> usual = {"epochs": 15, "train_batch_size": 128}
    >>> epochs_on(usual, 60_000, 2_000), epochs_on(usual, 1_500, 1_500)
    (75, 15)
    """
    epochs = int(training["epochs"])
    fewest = min(_FEWEST_STEPS, steps_of(training, epochs, n_stored))
    return max(epochs, -(-fewest // steps_of(training, 1, n_examples)))


def steps_of(training: Mapping[str, Any], epochs: int, n_examples: int) -> int:
    """Steps of so many epochs over so many examples."""
    return epochs * -(-n_examples // int(training["train_batch_size"]))


def _weights(store: Store, plan: SketchPlan, n_examples: int, folder: Path) -> dict[str, Any]:
    training = training_of(store)
    if training is None:
        return _given(store, plan, folder)
    names = ("n_checkpoints", "train_batch_size", "learning_rate")
    return {name: training[name] for name in names} | {"epochs": epochs_on(training, store.n_examples, n_examples)}


def _given(store: Store, plan: SketchPlan, folder: Path) -> dict[str, Any]:
    """Their learning rate is said where it is one: then it may have been given, and not be in the files."""
    rates = {checkpoint.learning_rate for checkpoint in plan.checkpoints}
    paths = _in_order([_on_this_machine(store, checkpoint) for checkpoint in plan.checkpoints], folder)
    return {"checkpoints": tuple(map(str, paths)), "learning_rate": rates.pop() if len(rates) == 1 else None}


def _in_order(paths: Sequence[Path], folder: Path) -> Sequence[Path]:
    """A build takes checkpoints in the order of their names: where that is another, copies with numbers in front."""
    if [found.path for found in find_checkpoints(paths, learning_rate=1.0)] == list(paths):
        return paths
    make_folder(folder)
    copies = [folder / f"{number:03}-{path.name}" for number, path in enumerate(paths)]
    for path, copy in zip(paths, copies, strict=True):
        with write_errors(copy):
            shutil.copyfile(path, copy)
    return copies


def _on_this_machine(store: Store, checkpoint: Checkpoint) -> Path:
    path = checkpoint.path
    if not path.is_absolute():
        path = store.local_file(path.as_posix(), checkpoint.sha256)
    if not path.is_file() or checkpoint.sha256 not in (None, file_sha256(path)):
        raise CheckpointError(
            f"The checkpoint {path} is gone, or not the one that '{store.location}' was made with. Put it back: a "
            "self-test sends a sample through the store's own weights."
        )
    return path
