"""The command that goes on with a store, from what the store says of itself."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from gradstore.errors import CheckpointError
from gradstore.models.weight_files import recorded_learning_rate
from gradstore.store import Store
from gradstore_pipelines.settings import BuildSettings

_TRAINING = ("epochs", "n_checkpoints", "train_batch_size", "learning_rate")
_OF_REQUEST = ("sketch_dim", "draws", "seed", "per_layer_norms", "sketch_dtype")


def finishing_command(store: Store) -> str:
    """What to run so that shards which are not done are made: the build, or the append, that made the store."""
    source = store.manifest.provenance.get("source", {})
    if source.get("format") == "joined":
        return shlex.join(["gradstore", "append", store.location])
    return shlex.join(
        ["gradstore", "build", str(source.get("path", "SOURCE")), "--store", store.location, *_all(store)]
    )


def _all(store: Store) -> Iterator[str]:
    for name, value in _asked(store).items():
        if value != _default(name):
            for one in value if isinstance(value, tuple) else (value,):
                yield from _option(name, one)


def _asked(store: Store) -> dict[str, Any]:
    """Settings by name, where the store knows them."""
    request, provenance = store.manifest.settings["request"], store.manifest.provenance
    known = {name: request[name] for name in _OF_REQUEST if name in request}
    training = request["training"] or {}
    known |= {name: training[name] for name in _TRAINING if name in training}
    if request["training"] is None:
        known |= _given(store)
    return {
        "model": provenance["model"],
        **_of_source(provenance["source"]),
        **known,
        "parameters": store.parameter_sets,
        **_shard_rows(store, request),
    }


def _of_source(source: Mapping[str, Any]) -> dict[str, Any]:
    labels = {"labels": source["labels"]} if source.get("labels") else {}
    size = {"image_size": source["shape"][-1]} if source.get("format") == "images" else {}
    return labels | size


def _given(store: Store) -> dict[str, Any]:
    """Checkpoints that were not trained here, and their learning rate where it is not the one that their files name."""
    checkpoints = store.manifest.settings["plan"]["checkpoints"]
    rates = {checkpoint["learning_rate"] for checkpoint in checkpoints}
    recorded = [_recorded(Path(checkpoint["path"])) for checkpoint in checkpoints]
    said = [checkpoint["learning_rate"] for checkpoint in checkpoints] == recorded
    rate = {} if said or len(rates) > 1 else {"learning_rate": rates.pop()}
    return {"checkpoints": tuple(str(checkpoint["path"]) for checkpoint in checkpoints), **rate}


def _recorded(path: Path) -> float | None:
    try:
        return recorded_learning_rate(path)
    except CheckpointError:  # gone, or damaged
        return None


def _shard_rows(store: Store, request: Mapping[str, Any]) -> dict[str, Any]:
    """Where the build would not choose them by itself."""
    found, block = store.manifest.shard_rows, request["block"]
    usual = BuildSettings(source="", store="", sketch_dim=store.d_sketch).rows_a_shard(store.n_examples, block)
    return {} if found == usual else {"shard_rows": found}


def _default(name: str) -> Any:
    (field,) = (field for field in fields(BuildSettings) if field.name == name)
    return None if field.default is MISSING else field.default


def _option(name: str, value: Any) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    return [flag] if value is True else [flag, str(value)]
