"""Devices by name."""

from __future__ import annotations

import torch

from gradstore.errors import DeviceError


def usable_device(name: str) -> str:
    """`name` itself, or for `auto` the GPU where torch sees one and else the CPU.

    Raises:
        DeviceError: no such kind of device, or none on this machine.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"Device {name!r} cannot be used here ({reason}). Use cpu, cuda, cuda:N or auto.") from error
    return name
