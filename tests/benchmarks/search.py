"""What exact search costs, in bare matrix products and in reads of the same bytes.

    python tests/benchmarks/search.py --peers --memory --out search.md

Two stores of random gradients are made by the store's own classes, under --folder: 1 million examples with sketches
of 512 at one checkpoint, 200,000 of 1,024 at five. Contenders (`search_contenders.py`) take turns in one process, on
one thread; a figure is the median over rounds of a contender's time divided by its floor's in the same round. The
store's files are in the page cache. Resident memory is that of a process of its own that opens the store and searches.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from gradstore.search import exact_search
from gradstore.store import Store

if TYPE_CHECKING:
    from tests.benchmarks.search_contenders import Case, Contender, K, Run, chosen, make_store
else:  # run as a script: the folder of the script is on the path, the repository is not
    from search_contenders import Case, K, chosen, make_store

SIZES = {"1m": (1_000_000, 512, 1), "200k": (200_000, 1024, 5)}


def main() -> None:
    """Measure each store and print a Markdown table."""
    options = _options()
    torch.set_num_threads(1)
    threadpool_limits(1)
    if options.resident:
        return _print_resident(options.resident)
    parts = [f"{platform.processor() or platform.machine()}, one thread, torch {torch.__version__}, k = {K}"]
    for size in options.sizes:
        folder = Path(tempfile.mkdtemp(dir=options.folder))
        try:
            parts.append(_measured(size, folder / "store", options))
        finally:
            shutil.rmtree(folder)
    text = "\n\n".join(parts) + "\n"
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    return None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--share", type=float, default=1.0, help="of the examples, for a trial")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", action="store_true", help="time numpy, faiss and the ways of other packages")
    parser.add_argument("--memory", action="store_true", help="resident memory too, in a process of its own (Linux)")
    parser.add_argument("--only", nargs="*", default=[], help="contenders whose title holds one of these words")
    parser.add_argument("--folder", type=Path, help="where the stores are made, and removed: 1 and 2 GB")
    parser.add_argument("--out", type=Path, help="write the tables here too")
    parser.add_argument("--resident", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _measured(size: str, path: Path, options: argparse.Namespace) -> str:
    n_examples, d_sketch, n_checkpoints = SIZES[size]
    n_examples = int(n_examples * options.share)
    title = f"{n_examples:,} x {d_sketch} x {n_checkpoints}"
    print(f"making {title}", file=sys.stderr, flush=True)
    case = Case(title, make_store(path, n_examples, d_sketch, n_checkpoints))
    resident = [f"Resident memory of exact search: {_resident(path)}"] if options.memory else []
    contenders = chosen(options.peers, options.only)
    times = _timed(case, contenders, options.rounds)
    return "\n".join([f"## {title}", "", *_table(times, contenders), "", *resident]).rstrip()


def _timed(case: Case, contenders: dict[str, Contender], rounds: int) -> dict[str, list[float]]:
    """Seconds of each contender in each round; the first turn of each, which compiles and warms, is not counted."""
    runs: dict[str, Run] = {title: contender.prepare(case) for title, contender in contenders.items()}
    times: dict[str, list[float]] = {title: [] for title in runs}
    for number in range(-1, rounds):
        for title, run in runs.items():
            if contenders[title].repeated or number == 0:
                seconds = _seconds(run) * contenders[title].scale(case)
                times[title] += [seconds] if number >= 0 else []
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return times


def _seconds(run: Run) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _table(times: dict[str, list[float]], contenders: dict[str, Contender]) -> list[str]:
    lines = ["| | seconds | times the floor | floor |", "|---|---|---|---|"]
    for title, seconds in times.items():
        floor = contenders[title].floor
        ratio = statistics.median(a / b for a, b in zip(seconds, times[floor], strict=False))
        lines.append(f"| {title} | {statistics.median(seconds):.3g} | {ratio:.3g} | {floor} |")
    return lines


def _resident(path: Path) -> str:
    command = [sys.executable, __file__, "--resident", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _print_resident(path: Path) -> None:
    """Peak resident memory of 256 queries and of one, and what the imports alone take."""

    def peak() -> str:  # not `getrusage`: its maximum begins with that of the process that started this one
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return f"{int(line.split()[1]) / 1024:.0f} MB"

    case = Case("", Store.open(path))
    queries, imports = case.queries, peak()
    exact_search(case.store, case.one, K)
    one = peak()
    exact_search(case.store, queries, K)
    print(f"{imports} after imports, {one} with one query, {peak()} with {len(queries)}")


if __name__ == "__main__":
    main()
