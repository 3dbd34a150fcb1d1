"""What sketches and exact norms cost, in plain training steps.

    python tests/benchmarks/gradients.py --peers --memory --out gradients.md

1.00 is the floor: one forward and backward of the same batch, mean loss, gradients of all parameters, one thread.
The engine, its reference points and the peers take turns in one process; a figure is the median over rounds of a
method's time divided by the floor's, measured just before it; the floor against itself shows the noise. The models are
`gradstore.testing.models`.
"""

from __future__ import annotations

import argparse
import math
import platform
import signal
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gradstore.testing.models import BENCHMARKS, Benchmark

if TYPE_CHECKING:
    from tests.benchmarks.gradient_memory import memory_above_floor
    from tests.benchmarks.gradient_methods import Case, Method, Step, capture_only, engine, floor, vmap_alone
    from tests.benchmarks.gradient_peers import PEERS, SkippedError
else:  # run as a script: the folder of the script is on the path, the repository is not
    from gradient_memory import memory_above_floor
    from gradient_methods import Case, capture_only, engine, floor, vmap_alone
    from gradient_peers import PEERS, SkippedError

FLOOR, OURS = "one training step", "gradstore: sketch and exact norms"
METHODS: dict[str, Method] = {
    FLOOR: floor,
    OURS: engine,
    "capture only": capture_only,
    "vmap(grad) alone": vmap_alone,
}
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16}
# A turn lasts at least this long, by repetition, so that the clock and the scheduler do not matter.
_TURN_SECONDS = 0.2


def main() -> None:
    """Time the models one after another and print a Markdown table."""
    options = _options()
    _set_up(options)
    results: dict[str, dict[str, str]] = {}
    peers, notes = _installed_peers() if options.peers else ({}, [])
    for benchmark in options.models:
        results[benchmark.title] = _column(benchmark, options, peers, notes)
        print(benchmark.name, results[benchmark.title], file=sys.stderr, flush=True)
    table = "\n".join([_conditions(options), "", *_table(results), "", *(f"- {note}" for note in notes)]).rstrip()
    print(table)
    if options.out:
        options.out.write_text(table + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=_benchmarks, default=BENCHMARKS, help="names, such as ae,vae")
    parser.add_argument("--batch", type=int, help="examples in a batch: 64 on a CPU, 256 on CUDA")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=list(DTYPES), default="fp32", help="tf32 matters on CUDA alone")
    parser.add_argument("--sketch-dim", type=int, default=1024)
    parser.add_argument("--peers", action="store_true", help="time captum, traker and dattri where installed")
    parser.add_argument("--peer-limit", type=float, default=120.0, help="seconds a peer may take for one batch")
    parser.add_argument("--memory", action="store_true", help="peak memory too, in processes of their own (Linux)")
    parser.add_argument("--out", type=Path, help="write the table here too")
    options = parser.parse_args()
    options.batch = options.batch or (256 if options.device == "cuda" else 64)
    if options.device == "cuda" and options.batch < 256:
        parser.error(f"--batch {options.batch} on CUDA times the launching of kernels; use 256 or more.")
    return options


def _benchmarks(names: str) -> tuple[Benchmark, ...]:
    known = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    if unknown := [name for name in names.split(",") if name not in known]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
    return tuple(known[name] for name in names.split(","))


def _set_up(options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = options.dtype == "tf32"


def _installed_peers() -> tuple[dict[str, Method], list[str]]:
    """Peers by title, and a note for each that is missing."""
    peers: dict[str, Method] = {}
    missing: dict[str, None] = {}
    for peer in PEERS:
        try:
            peers[peer.title()] = peer.method
        except SkippedError as error:
            missing[f"{error}."] = None
    return peers, list(missing)


def _column(
    benchmark: Benchmark, options: argparse.Namespace, peers: Mapping[str, Method], notes: list[str]
) -> dict[str, str]:
    """Everything about one model: ratios by method, examples per second, memory."""
    device = torch.device(options.device)
    case = Case.make(benchmark, options.batch, device, DTYPES[options.dtype], options.sketch_dim)
    limits = {**dict.fromkeys(METHODS, math.inf), **dict.fromkeys(peers, options.peer_limit)}
    prepared = {name: _prepared(name, {**METHODS, **peers}[name], case, limit) for name, limit in limits.items()}
    steps = {name: step for name, step in prepared.items() if step}
    pairs = _take_turns(steps, options.rounds, case.device)
    cells = {name: f"{statistics.median(own / plain for own, plain in pairs[name]):.2f}" for name in pairs}
    for name in (FLOOR, OURS):
        if name in pairs:
            seconds = statistics.median(own for own, _ in pairs[name])
            cells[f"{name}, examples per second"] = f"{options.batch / seconds:,.0f}"
    if options.memory:
        cells["gradstore: peak memory above the training step's, MB"] = str(round(memory_above_floor(case) / 1e6))
    notes += [f"{benchmark.title}: {note}." for note in case.notes]
    return cells


def _prepared(name: str, method: Method, case: Case, limit: float) -> Step | None:
    """A step that has run once within the limit, or None with a note that says why not."""
    try:
        with _time_limit(limit):
            step = method(case)
            step()
    except Exception as error:  # a peer may fail in any way, and the others must still be timed
        if name == FLOOR:
            raise
        reason = str(error) if isinstance(error, SkippedError) else f"{type(error).__name__}: {error}".splitlines()[0]
        case.notes.append(f"{name} is left out: {reason}")
        return None
    return step


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    if seconds == math.inf:
        yield
        return

    def stop(signal_number: int, frame: Any) -> None:
        raise SkippedError(f"it takes more than {seconds:g} s for the batch")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, previous)


def _take_turns(steps: Mapping[str, Step], rounds: int, device: torch.device) -> dict[str, list[tuple[float, float]]]:
    """By method and round: seconds of its step, and of the floor's just before; each round begins elsewhere."""
    repeats = {name: math.ceil(_TURN_SECONDS / _seconds(step, 1, device)) for name, step in steps.items()}
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    names = list(steps)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            plain, own = (_seconds(steps[taken], repeats[taken], device) for taken in (FLOOR, name))
            pairs[name].append((own, plain))
    return pairs


def _seconds(step: Step, repeats: int, device: torch.device) -> float:
    _synchronise(device)
    start = time.perf_counter()
    for _ in range(repeats):
        step()
    _synchronise(device)
    return (time.perf_counter() - start) / repeats


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _conditions(options: argparse.Namespace) -> str:
    device = torch.cuda.get_device_name() if options.device == "cuda" else f"{platform.machine()} CPU, one thread"
    return (
        f"torch {torch.__version__}, {device}, {options.dtype}, batch of {options.batch}, "
        f"k = {options.sketch_dim}, median of {options.rounds} rounds."
    )


def _table(results: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Methods down, models across."""
    names = list(dict.fromkeys(name for cells in results.values() for name in cells))
    rows = [["", *results], ["---"] * (len(results) + 1)]
    rows += [[name, *(cells.get(name, "–") for cells in results.values())] for name in names]
    return [f"| {' | '.join(row)} |" for row in rows]


if __name__ == "__main__":
    main()
