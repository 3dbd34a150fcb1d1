"""Read weights from files that others wrote, without ever running code that a file carries.

A `.pt` file is a pickle, and a pickle is a program. torch's weights-only reader admits tensors and plain
containers; to these we add numpy's scalars, which training scripts often store beside the weights.
"""

from __future__ import annotations

import _codecs
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gradstore.errors import CheckpointError

PICKLED = frozenset({".pt", ".pth", ".ckpt"})
SUFFIXES = PICKLED | {".safetensors"}

_STATE_KEYS = ("model", "state_dict", "model_state_dict")
_OPTIMIZER_KEYS = ("optimizer", "optimizer_state_dict", "optimizer_states")
_RATE_KEYS = ("learning_rate", "lr")
_NUMPY_TYPES = [type(np.dtype(name)) for name in ("bool", "int32", "int64", "float16", "float32", "float64")]
# numpy.core is where numpy 1 wrote its scalars from.
_SCALAR = np.float64(0.0).__reduce__()[0]
_HARMLESS: list[Any] = [_SCALAR, (_SCALAR, "numpy.core.multiarray.scalar"), np.dtype, _codecs.encode, *_NUMPY_TYPES]


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by the names that the file gives them.

    Raises:
        CheckpointError: not a checkpoint, damaged, or holding Python objects that only code could rebuild.
    """
    if path.suffix == ".safetensors":
        with _opened(path) as file:
            return _some({name: file.get_tensor(name) for name in file.keys()}, [], path)  # noqa: SIM118 (no iterator)
    return _state(_unpickled(path), path)


def recorded_learning_rate(path: Path) -> float | None:
    """The learning rate that the file itself names, or None.

    Raises:
        CheckpointError: the file cannot be read, or its parameter groups have different rates.
    """
    if path.suffix == ".safetensors":
        with _opened(path) as file:
            return _named_rate(file.metadata() or {})
    record = _unpickled(path)
    rate = _named_rate(record)
    return _optimizer_rate(record, path) if rate is None else rate


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def _unpickled(path: Path) -> Mapping[str, Any]:
    with warnings.catch_warnings(), torch.serialization.safe_globals(_HARMLESS):
        warnings.simplefilter("ignore")  # of the pickle's version
        try:
            record = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
        except Exception as error:  # a damaged pickle raises whatever its bytes happen to mean
            raise _refusal(path, error) from error
    if not isinstance(record, Mapping):
        raise CheckpointError(f"{path} holds one {type(record).__name__}, not a state_dict. {_HOW_TO_SAVE}")
    return record


_HOW_TO_SAVE = "Save it again with torch.save(model.state_dict(), path), or as safetensors."


def _refusal(path: Path, error: Exception) -> CheckpointError:
    named = re.search(r"GLOBAL (\S+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if named is None:
        return _unreadable(path, error)
    return CheckpointError(
        f"{path} holds the Python object {named[1]}, which only running code from the file could rebuild; "
        f"gradstore never runs code from files and reads tensors, numbers and text alone. {_HOW_TO_SAVE}"
    )


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    reason = f"{type(error).__name__}: {error}".splitlines()[0].strip()[:160]
    size = path.stat().st_size if path.exists() else 0
    return CheckpointError(
        f"{path} ({size} bytes) cannot be read as a checkpoint ({reason}). "
        "Expected a file by safetensors or torch.save. Copy it again if it was cut short."
    )


def _state(record: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    nested = [record[key] for key in _STATE_KEYS if isinstance(record.get(key), Mapping)]
    state = {name: value for name, value in (nested or [record])[0].items() if isinstance(value, Tensor)}
    return _some(state, list(record), path)


def _some(state: dict[str, Tensor], keys: Sequence[str], path: Path) -> dict[str, Tensor]:
    """The tensors; CheckpointError where there are none."""
    if not state:
        raise CheckpointError(
            f"{path} holds no tensors under {', '.join(map(repr, keys[:6])) or 'any key'}. "
            f"Expected a state_dict, bare or under one of {', '.join(_STATE_KEYS)}. {_HOW_TO_SAVE}"
        )
    return state


def _named_rate(record: Mapping[str, Any]) -> float | None:
    found = [record[key] for key in _RATE_KEYS if key in record]
    return _as_rate(found[0]) if found else None


def _as_rate(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            f"A checkpoint records the learning rate {value!r}. Expected a number. Pass --learning-rate."
        ) from error


def _optimizer_rate(record: Mapping[str, Any], path: Path) -> float | None:
    rates = {_as_rate(group["lr"]) for group in _parameter_groups(record) if "lr" in group}
    if len(rates) > 1:
        raise CheckpointError(
            f"{path} was trained with a learning rate a parameter group: {', '.join(map(str, sorted(rates)))}. "
            "Expected one a checkpoint. Say which to use with --learning-rate."
        )
    return rates.pop() if rates else None


def _parameter_groups(record: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for key in _OPTIMIZER_KEYS:
        states = record.get(key, [])
        for state in states if isinstance(states, list) else [states]:
            yield from state.get("param_groups", []) if isinstance(state, Mapping) else []
