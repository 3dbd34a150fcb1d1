"""Peak memory of the engine above a plain training step's, each measured in a fresh process.

On a CPU it is the peak of resident memory, on Linux with glibc: VmHWM and not `ru_maxrss`, for Linux hands a
process's `ru_maxrss` down to the programs that it starts. On CUDA it is torch's own count.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gradstore.testing.models import BENCHMARKS

if TYPE_CHECKING:
    from tests.benchmarks.gradient_methods import Case, engine, floor
else:  # run as a script: the folder of the script is on the path, the repository is not
    from gradient_methods import Case, engine, floor

_METHODS = {"engine": engine, "floor": floor}


def memory_above_floor(case: Case) -> int:
    """Bytes that `engine` needs at its peak beyond `floor`'s."""
    peaks = {method: _peak_elsewhere(method, case) for method in _METHODS}
    return peaks["engine"] - peaks["floor"]


def _peak_elsewhere(method: str, case: Case) -> int:
    precision = str(case.dtype).removeprefix("torch.")
    words = [method, case.benchmark.name, str(len(case.batch)), case.device.type, precision, str(case.d_sketch)]
    done = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE)
    return int(done.stdout)


def _main(method: str, benchmark: str, n: str, device_type: str, precision: str, d_sketch: str) -> None:
    """Print the peak of one method, in bytes.

    Either method first runs the engine on two examples of the smallest model: numba and its compiled code are then
    in both processes, and the difference is what this model and batch need.
    """
    torch.set_num_threads(1)
    device, dtype = torch.device(device_type), getattr(torch, precision)
    engine(Case.make(BENCHMARKS[0], 2, device, dtype, d_sketch=8))()
    _forget_peak(device)
    found = next(known for known in BENCHMARKS if known.name == benchmark)
    step = _METHODS[method](Case.make(found, int(n), device, dtype, int(d_sketch)))
    for _ in range(3):
        step()
    print(torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident_peak())


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        ctypes.CDLL(None).malloc_trim(0)  # else what was freed so far would serve the batch unseen
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # see proc(5): resets VmHWM


def _resident_peak() -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return 1024 * int(kilobytes)


if __name__ == "__main__":
    _main(*sys.argv[1:])
