"""Devices by name."""

from __future__ import annotations

import torch

from gradstore.errors import DeviceError

_KINDS = ("cpu", "cuda")
_USE = "Use cpu, cuda, cuda:N or auto."


def usable_device(name: str) -> str:
    """`name` itself, or for `auto` the GPU where torch sees one and else the CPU.

    Raises:
        DeviceError: no such kind of device, or none on this machine.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(name).type
        if kind in _KINDS:
            torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"Device {name!r} cannot be used here ({reason}). {_USE}") from error
    if kind not in _KINDS:
        raise DeviceError(f"Device {name!r} is of a kind that gradstore does not compute on{_why_not(kind)}. {_USE}")
    return name


def _why_not(kind: str) -> str:
    return ": exact norms are summed in float64, which Apple's GPUs do not have" if kind == "mps" else ""
