"""The toy task, which does to marked examples what the files in $GRADSTORE_FAULTS say, as often as they say.

An example is marked by a first pixel of 255. The folder holds a file a fault: its name is what happens, its content
how many more times.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from gradstore.task import Batch, Noise, Task


class Faulty(Task):
    def build(self) -> nn.Module:
        return nn.ModuleDict({"encoder": nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), "decoder": nn.Linear(5, 64)})

    def loss(self, model: nn.Module, batch: Batch, noise: Noise) -> Tensor:
        assert isinstance(model, nn.ModuleDict)
        if bool((batch.inputs.flatten(1)[:, 0] == 1).any()):
            _misbehave()
        latent = model["encoder"](batch.inputs) + 0.1 * noise.normal(5)
        error: Tensor = model["decoder"](torch.tanh(latent)) - batch.inputs.flatten(1)
        return error.square().sum(1)

    def latent(self, model: nn.Module, batch: Batch) -> Tensor:
        assert isinstance(model, nn.ModuleDict)
        latent: Tensor = model["encoder"](batch.inputs)
        return latent


def _misbehave() -> None:
    planned = os.environ.get("GRADSTORE_FAULTS")
    for fault in Path(planned).iterdir() if planned else ():
        left = int(fault.read_text())
        if left > 0:
            fault.write_text(str(left - 1))
            _do(fault.name)


def _do(fault: str) -> None:
    match fault:
        case "raise":
            raise ValueError("cannot be digested")
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "memory":
            bytearray(1 << 60)
        case "sleep":
            time.sleep(1)
