"""Are a store's rows those of its data and its model? A few of them, drawn at random, are computed again.

A row is evaluated in the very block of rows in which the build evaluated it, and encoded as the build encoded it: on
the same kind of machine with the same versions of the libraries it has the same bytes. Elsewhere float32 sums round
otherwise; such a row is `close` and no fault.
"""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gradstore.data import ExampleSource, load_batch, reopen
from gradstore.errors import SourceError
from gradstore.sketcher import Sketcher, single_thread, sketcher_of
from gradstore.store import Store
from gradstore.store.chunks import encode
from gradstore.store.findings import Discard, Finding, VerifyReport
from gradstore.store.layout import ArrayLayout
from gradstore.store.row_access import read_range
from gradstore_pipelines.progress import Reporter, Silent
from gradstore_pipelines.stages.sketch import shard_rows

# float16 rounds by 2^-11 of a value and int8 by 1/254 of a row's largest; float32 sums of another machine differ less.
_CLOSE = {"<f2": 2.0**-9, "<f4": 2.0**-9, "|i1": 2.0}
_SHOWN = 5

Verdict = Literal["same", "close", "different"]


@dataclass(frozen=True, order=True)
class Drawn:
    """A row that is computed again."""

    checkpoint: int
    row: int


def recompute(
    store: Store, n_rows: int, *, device: str = "cpu", seed: int = 0, reporter: Reporter | None = None
) -> tuple[list[Finding], dict[str, int]]:
    """Compute rows again and hold them against what is stored.

    Args:
        n_rows: how many, spread over checkpoints and shards that are done.
        seed: of the choice.

    Returns:
        What is wrong, and how many rows are same, close and different.

    Raises:
        SourceError: the data have gone.
        CheckpointError: weights have gone, or are not those that the store was made with.
    """
    drawn = draw(store, n_rows, seed)
    source = reopen(store.manifest.provenance["source"])
    if fault := _fault_of_data(store, source, drawn):
        return [Finding("damaged", str(source.describe().get("path")), fault)], {}
    verdicts: dict[Drawn, Verdict] = {}
    sketcher = sketcher_of(store, device)
    with (reporter or Silent()).task("recompute", len(drawn), "rows") as advance:
        for rows in _by_block(drawn, sketcher.plan.block):
            verdicts |= _judged(store, source, sketcher, rows)
            advance(len(rows))
    counts = Counter(verdicts.values())
    findings = list(_findings(store, [at for at, verdict in verdicts.items() if verdict == "different"]))
    return findings, {"rows": len(drawn), **{name: counts[name] for name in ("same", "close", "different")}}


def with_recomputed(
    report: VerifyReport, store: Store, n_rows: int, device: str, reporter: Reporter | None = None
) -> VerifyReport:
    """A report with what computing rows again has shown."""
    try:
        findings, counts = recompute(store, n_rows, device=device, reporter=reporter)
    except SourceError as error:
        return report.with_more([Finding("missing", "data", f"No row could be computed again: {error}")])
    close = counts.get("close", 0)
    note = f"{close} of {counts.get('rows')} rows differ in the last bits: another machine or other versions made them."
    return report.with_more(findings, recomputed=counts, notes=(*report.notes, *([note] if close else [])))


def draw(store: Store, n_rows: int, seed: int) -> list[Drawn]:
    """Rows of shards that are done, without repeats, in order."""
    random = np.random.default_rng(seed)
    pending = set(store.pending())
    units = [(c, s) for c in range(store.n_checkpoints) for s in range(store.n_shards) if (c, s) not in pending]
    if not units:
        return []
    sizes = np.array([len(store.shard_range(shard)) for _, shard in units])
    chosen = random.choice(int(sizes.sum()), min(n_rows, int(sizes.sum())), replace=False)
    ends = np.cumsum(sizes)
    numbers = np.searchsorted(ends, chosen, side="right")
    places = chosen - (ends - sizes)[numbers]
    return sorted(
        Drawn(units[n][0], store.shard_range(units[n][1]).start + int(place))
        for n, place in zip(numbers, places, strict=True)
    )


def _fault_of_data(store: Store, source: ExampleSource, drawn: list[Drawn]) -> str:
    """In words; empty where the data have these examples in these places."""
    path, rows = source.describe().get("path"), np.unique([at.row for at in drawn]).astype(np.int64)
    if len(source) != store.n_examples:
        return f"The data at '{path}' are {len(source)} examples; the store was made of {store.n_examples}."
    if source.ids(rows) != store.examples_at(rows).column("id").to_pylist():
        return f"The data at '{path}' have other ids than the store: put back the data that it was made of."
    return ""


def _by_block(drawn: list[Drawn], block: int) -> Iterator[list[Drawn]]:
    groups: dict[tuple[int, int], list[Drawn]] = {}
    for at in drawn:
        groups.setdefault((at.checkpoint, at.row // block), []).append(at)
    yield from groups.values()


@single_thread()
def _judged(store: Store, source: ExampleSource, sketcher: Sketcher, rows: list[Drawn]) -> dict[Drawn, Verdict]:
    """Rows of one block at one checkpoint."""
    checkpoint, block = rows[0].checkpoint, sketcher.plan.block
    start = rows[0].row // block * block
    stop = min(start + block, store.n_examples)
    found = sketcher.gradients(checkpoint, load_batch(source, slice(start, stop)))
    as_one_shard = dataclasses.replace(store.manifest, shard_rows=stop - start)
    chunks = encode([shard_rows(found)], as_one_shard, stop - start)
    return {at: _verdict(store, at, {array: chunk[at.row - start] for array, chunk in chunks.items()}) for at in rows}


def _verdict(store: Store, at: Drawn, computed: dict[ArrayLayout, NDArray[Any]]) -> Verdict:
    read = functools.partial(read_range, store.place, manifest=store.manifest, checkpoint=at.checkpoint)
    stored = {array: read(array=array, start=at.row, stop=at.row + 1)[0] for array in computed}
    if all(values.tobytes() == stored[array].tobytes() for array, values in computed.items()):
        return "same"
    return "close" if all(_is_close(array, computed[array], stored[array]) for array in computed) else "different"


def _is_close(array: ArrayLayout, a: NDArray[Any], b: NDArray[Any]) -> bool:
    """By the size of the row's largest number; integers by steps."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    largest = 1.0 if array.dtype == "|i1" else max(float(np.abs(a).max()), 1e-30)
    return bool(np.abs(a - b).max() <= _CLOSE[array.dtype] * largest)


def _findings(store: Store, different: list[Drawn]) -> Iterator[Finding]:
    """One a shard."""
    by_shard: dict[Discard, list[int]] = {}
    for at in different:
        by_shard.setdefault(Discard(at.checkpoint, at.row // store.manifest.shard_rows), []).append(at.row)
    for shard, rows in by_shard.items():
        names = store.examples_at(np.array(rows[:_SHOWN])).column("id").to_pylist()
        what = f"Shard {shard.shard} of checkpoint {shard.checkpoint} holds other rows than its data and model give"
        cure = "gradstore verify --repair takes the shard back, and the next build makes it again."
        yield Finding("rows", f"commits/{shard.checkpoint}-{shard.shard}.json", f"{what}: {names}. {cure}", shard)
