"""Checkpoints: saved weights plus the learning rate in force, and the file's hash.

Every weight file is compared with its hash before use: explaining a model with weights that are not those that
the store was made with gives answers that look right and are not.
"""

from __future__ import annotations

import glob
import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor, nn

from gradstore.errors import CheckpointError
from gradstore.models.weight_files import SUFFIXES, read_weights, recorded_learning_rate
from gradstore.store.files import write_atomically

# What DataParallel, a LightningModule or trainer, and torch.compile put before a parameter's name.
_WRAPPERS = ("module.", "model.", "_orig_mod.")
_SHOWN = 4


@dataclass(frozen=True)
class Checkpoint:
    """Saved weights, the learning rate in force when they were saved, and the SHA-256 of the file, if known."""

    path: Path
    learning_rate: float
    sha256: str | None = None


def save_checkpoint(path: Path, model: nn.Module, *, learning_rate: float, step: int, epoch: int) -> Checkpoint:
    """Write weights and buffers as safetensors: the same weights give the same bytes.

    Raises:
        StoreWriteError: no space, no permission, or another failure of the file system.
    """
    # Copies, because safetensors refuses tensors that share memory, as tied weights do.
    state = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in model.state_dict().items()}
    metadata = {"learning_rate": repr(learning_rate), "step": str(step), "epoch": str(epoch)}
    data = _with_metadata(safetensors.torch.save(state), metadata)
    write_atomically(path, data)
    return Checkpoint(path, learning_rate, hashlib.sha256(data).hexdigest())


def _with_metadata(data: bytes, metadata: Mapping[str, str]) -> bytes:
    """Safetensors bytes with metadata in sorted order: the library writes it in another order in every process.

    The file is 8 bytes of header size, a JSON header padded with spaces to 8 bytes, then the tensors.
    """
    size = int.from_bytes(data[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(data[8 : 8 + size])}
    text = json.dumps(header, separators=(",", ":")).encode()
    padded = text + b" " * (-len(text) % 8)
    return len(padded).to_bytes(8, "little") + padded + data[8 + size :]


def find_checkpoints(paths: str | Path | Sequence[str | Path], learning_rate: float | None = None) -> list[Checkpoint]:
    """Checkpoints that others or we saved, in the order of the numbers in their names.

    Args:
        paths: a path, a shell pattern, or several of them. A list is sorted as well.
        learning_rate: eta of every checkpoint; None reads it from each file (`learning_rate` or `lr`, or the
            optimizer's parameter groups, as torch and Lightning save them).

    Raises:
        CheckpointError: no such file, an unknown format, a file that cannot be read, or no learning rate.
    """
    patterns = [paths] if isinstance(paths, str | Path) else paths
    found = sorted({path for pattern in patterns for path in _matches(str(pattern))}, key=_natural)
    return [Checkpoint(path, _learning_rate(path, learning_rate), file_sha256(path)) for path in found]


def load_checkpoint(model: nn.Module, checkpoint: Checkpoint) -> None:
    """Load weights and buffers in place; every name and shape must fit.

    A wrapper's prefix (`module.`, `model.`, `_orig_mod.`) is stripped where that makes the names fit.

    Raises:
        CheckpointError: the file changed since it was recorded, cannot be read, or does not fit the model.
    """
    _require_unchanged(checkpoint)
    expected: Mapping[str, Tensor] = model.state_dict()
    weights = _without_wrappers(read_weights(checkpoint.path), expected.keys())
    _require_fit(weights, expected, checkpoint.path)
    model.load_state_dict(weights)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _matches(pattern: str) -> list[Path]:
    found = [Path(pattern)] if Path(pattern).is_file() else [Path(name) for name in glob.glob(pattern)]  # noqa: PTH207
    if not found:
        raise CheckpointError(
            f"No file matches {pattern!r}. Expected checkpoints ({', '.join(sorted(SUFFIXES))}); "
            "quote the pattern, as in --checkpoints 'runs/*.pt'."
        )
    for path in found:
        _require_format(path)
    return found


def _require_format(path: Path) -> None:
    if path.suffix not in SUFFIXES or not path.is_file():
        kind = f"has the suffix {path.suffix!r}" if path.is_file() else "is no file"
        raise CheckpointError(
            f"{path} {kind}. Expected one of {', '.join(sorted(SUFFIXES))}: "
            "narrow the pattern, as in --checkpoints 'runs/*.safetensors'."
        )


def _natural(path: Path) -> list[str | int]:
    """Sort key in which `step-9` comes before `step-10`."""
    parts = re.split(r"(\d+)", str(path))
    return [int(part) if odd % 2 else part for odd, part in enumerate(parts)]


def _learning_rate(path: Path, given: float | None) -> float:
    rate = recorded_learning_rate(path) if given is None else given
    if rate is None:
        read_weights(path)  # without weights it is no checkpoint, and that is what to say
        raise CheckpointError(
            f"{path} does not say which learning rate was in force. Expected a key learning_rate or lr, or an "
            "optimizer's state. Pass --learning-rate."
        )
    if not (math.isfinite(rate) and rate > 0):
        origin = "was saved with" if given is None else "is to be used with"
        raise CheckpointError(
            f"{path} {origin} the learning rate {rate}, which would give it no weight in TracIn's sum. "
            "Expected a number above 0. Pass the rate of the steps before it with --learning-rate."
        )
    return rate


def _require_unchanged(checkpoint: Checkpoint) -> None:
    if not checkpoint.path.is_file():
        raise CheckpointError(f"The checkpoint {checkpoint.path} is gone. Put it back, or build a new store.")
    found = file_sha256(checkpoint.path)
    if checkpoint.sha256 not in (None, found):
        raise CheckpointError(
            f"{checkpoint.path} has changed since it was recorded: its SHA-256 is {found[:12]}…, expected "
            f"{str(checkpoint.sha256)[:12]}…. Put the original file back, or build a new store."
        )


def _without_wrappers(weights: dict[str, Tensor], names: Set[str]) -> dict[str, Tensor]:
    """The weights under the model's own names; unchanged if no stripping makes them fit."""
    candidates = [weights]
    for candidate in candidates:  # grows while it is walked: wrappers may be nested in any order
        if candidate.keys() == names:
            return candidate
        candidates += filter(None, (_stripped(candidate, prefix) for prefix in _WRAPPERS))
    return weights


def _stripped(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What lies under the prefix; a LightningModule keeps its metrics' tensors beside it."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def _require_fit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    reshaped = [
        f"{name} {list(weights[name].shape)}, expected {list(expected[name].shape)}"
        for name in expected
        if name in weights and weights[name].shape != expected[name].shape
    ]
    faults = [
        _listed("missing", [name for name in expected if name not in weights]),
        _listed("unexpected", [name for name in weights if name not in expected]),
        _listed("of another shape", reshaped),
    ]
    if any(faults):
        raise CheckpointError(
            f"{path} does not fit the model. {' '.join(filter(None, faults))} "
            "Use the model and the settings with which these weights were trained."
        )


def _listed(fault: str, names: Iterable[str]) -> str:
    every = list(names)
    rest = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return f"{len(every)} {fault}: {', '.join(every[:_SHOWN])}{rest}." if every else ""
