"""The ranking: every example, the most suspicious first, with its reason in words.

Computing signals and ordering by them are apart (`compute_signals`, `rank_table`), so that signals, which take a
pass over the store, can be kept and ordered in another way for nothing. Equal scores stay in store order: the same
store always gives the same table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float, Int
from numpy.typing import NDArray

from gradstore.errors import QueryError, ShapeError, UnknownSignalError
from gradstore.ranking.combine import (
    LABELLED_COMBINATION,
    TAILS,
    combination_in,
    combined,
    in_group,
    percentile,
    require_finite,
)
from gradstore.ranking.cutoff import CutOff, estimate_bad, estimate_wrong
from gradstore.ranking.kinds import LABEL_ERROR, Evidence, class_percentile, kinds
from gradstore.ranking.reasons import reasons
from gradstore.ranking.signals import ALL_SIGNALS, SignalStore, Values, compute_signals, possible_signals, signals_of
from gradstore.ranking.signals.label_noise import suggested_classes

if TYPE_CHECKING:
    from gradstore.store.manifest import Manifest

COMBINED = "combined"
"""Ranking by `gradstore.ranking.combine.combined`."""

CUT_OFF = "gradstore.cutoff"
"""The key in a ranking's metadata under which stands how many examples seem bad, as JSON: n, low, high, score."""

_AT_MOST = 4
"""At most one in so many examples is said to be of a kind: beyond that the estimate says nothing."""

_NAMED_ROWS = 65536


class RankedStore(SignalStore, Protocol):
    """What a ranking reads of a store: its signals, and who the examples are."""

    @property
    def manifest(self) -> Manifest: ...

    def require_complete(self) -> None: ...

    def ids(self, start: int, stop: int) -> list[str]: ...

    def paths(self, start: int, stop: int) -> list[str | None]: ...

    def labels(self) -> NDArray[np.int32] | None: ...


def rank(
    store: RankedStore,
    signals: Sequence[str] | None = None,
    by: str = COMBINED,
    progress: Callable[[str], None] | None = None,
) -> pa.Table:
    """Every example, the most suspicious first.

    Args:
        store: a complete store.
        signals: names of the signals to show; None for all that the store has. What `by` needs is computed in any case.
        by: `combined`, or the name of one signal.
        progress: called with a signal's name before it is computed.

    Returns:
        The table of `rank_table`.

    Raises:
        StoreIncompleteError: the store's build has not finished.
        UnknownSignalError: a name that is no signal; lists those there are.
        QueryError: a signal that is not finite for some examples; names them.
    """
    names = signal_names(store, signals, by)
    store.require_complete()
    return rank_table(store, compute_signals(store, names, progress), by)


def signal_names(store: SignalStore, signals: Sequence[str] | None, by: str = COMBINED) -> list[str]:
    """The signals to compute in order to show `signals` (None: all that the store has) ranked by `by`."""
    shown = signals_of(store) if signals is None else list(signals)
    return list(dict.fromkeys([*shown, *needed_by(by, possible_signals(store))]))


def rank_table(store: RankedStore, signals: Mapping[str, Values], by: str = COMBINED) -> pa.Table:
    """The ranking that computed signals give.

    Args:
        store: who the examples are.
        signals: name -> [N] in store order, as `compute_signals` returns them.
        by: `combined`, or the name of one of `signals`.

    Returns:
        One row an example, sorted by rank: id, path (null without one), label (its name where known), rank (1 = most
        suspicious), score, percentile (share of examples with a lower score), class_percentile (the same within its
        class; null without labels), kind (see `gradstore.ranking.kinds`; null where nothing is suspected),
        suggested_label (of a label error: the one to put in its place; null for others), every signal, reason.
        Metadata say how many seem bad: `cut_off_of`.

    Raises:
        UnknownSignalError: `by` or a key of `signals` is no signal.
        QueryError: a signal that `by` needs is not among `signals`, or is not finite.
        ShapeError: not one number an example.
    """
    _require_one_number_an_example(store, signals)
    scores = scores_by(signals, by)
    order = np.argsort(-scores, kind="stable")
    cut = estimated_cut_off(signals, scores, by)
    within = class_percentile(scores, store.labels())
    suspicious = np.isin(np.arange(len(order)), order[: min(cut.high + cut.grouped, len(order) // _AT_MOST)])
    words = kinds(Evidence(signals, len(order), within), suspicious, order)
    columns = {
        **{name: column.take(order) for name, column in identities(store).items()},
        "rank": pa.array(np.arange(1, len(order) + 1)),
        "score": pa.array(scores[order]),
        "percentile": pa.array(percentile(scores)[order]),
        "class_percentile": pa.nulls(len(order), pa.float64()) if within is None else pa.array(within[order]),
        "kind": words,
        "suggested_label": suggested_labels(store, words, order),
        **{name: pa.array(values[order].astype(np.float32)) for name, values in signals.items()},
        "reason": reasons(signals, order),
    }
    return pa.table(columns).replace_schema_metadata({CUT_OFF: json.dumps(asdict(cut))})


def estimated_cut_off(signals: Mapping[str, Values], scores: Values, by: str = COMBINED) -> CutOff:
    """How many examples seem bad, by the signals that a ranking is made of and its scores."""
    if by != COMBINED:
        return estimate_bad({by: signals[by]}, scores)
    if combination_in(signals) == LABELLED_COMBINATION:
        return estimate_wrong(signals["label_error"], scores)
    alone = ~in_group(signals)
    found = estimate_bad({name: signals[name][alone] for name in TAILS}, scores[alone])
    return replace(found, grouped=int((~alone).sum()))


def cut_off_of(table: pa.Table) -> CutOff | None:
    """What a ranking says about how many examples are bad; None for a table that says nothing."""
    found = (table.schema.metadata or {}).get(CUT_OFF.encode())
    return None if found is None else CutOff(**json.loads(found))


def needed_by(by: str, possible: Collection[str]) -> tuple[str, ...]:
    """The signals that a ranking by `by` is made of, of those that are possible.

    Raises:
        UnknownSignalError: neither `combined` nor a signal.
    """
    if by == COMBINED:
        return combination_in(possible)
    if by not in ALL_SIGNALS:
        raise UnknownSignalError(f"Cannot rank by {by!r}. Rank by one of: {COMBINED}, {', '.join(ALL_SIGNALS)}.")
    return (by,)


def scores_by(signals: Mapping[str, Values], by: str = COMBINED) -> Float[np.ndarray, " example"]:
    """The numbers that a ranking orders by, higher = more suspicious; see `rank_table`."""
    needed = needed_by(by, signals)
    missing = [name for name in needed if name not in signals]
    if missing:
        raise QueryError(
            f"Ranking by {by} needs {', '.join(needed)}; {', '.join(missing)} is missing from {', '.join(signals)}. "
            "Compute it too, or rank by a signal that is there."
        )
    chosen = {name: signals[name] for name in needed}
    return combined(chosen) if by == COMBINED else np.asarray(chosen[by], dtype=np.float64)


def _require_one_number_an_example(store: RankedStore, signals: Mapping[str, Values]) -> None:
    for name, values in signals.items():
        if values.shape != (store.n_examples,):
            raise ShapeError(
                f"Signal {name!r} has shape {values.shape}; the store has {store.n_examples} examples. "
                "Compute the signals from this store."
            )
    require_finite(signals, name_of=lambda row: repr(store.ids(row, row + 1)[0]))


def identities(store: RankedStore) -> dict[str, pa.ChunkedArray[Any]]:
    """Ids, paths and label names in store order, as Arrow strings: a Python string an example would be far larger."""
    return {
        "id": _strings(store.n_examples, store.ids),
        "path": _strings(store.n_examples, store.paths),
        "label": pa.chunked_array([_label_names(store)]),
    }


def _strings(n_examples: int, read: Callable[[int, int], Sequence[str | None]]) -> pa.ChunkedArray[Any]:
    starts = range(0, n_examples, _NAMED_ROWS)
    return pa.chunked_array([pa.array(read(i, min(i + _NAMED_ROWS, n_examples)), pa.string()) for i in starts])


def suggested_labels(store: RankedStore, words: pa.Array[Any], order: Int[np.ndarray, " row"]) -> pa.Array[Any]:
    """For each label error among `words`, in the order of `order`, the name of the class that the model prefers."""
    wrong = np.asarray(pc.equal(words, pa.scalar(LABEL_ERROR)).fill_null(False))
    if not wrong.any():
        return pa.nulls(len(order), pa.string())
    return _class_names(store, np.where(wrong, suggested_classes(store)[order], -1))


def _label_names(store: RankedStore) -> pa.Array[Any]:
    """Null without a label."""
    labels = store.labels()
    return pa.nulls(store.n_examples, pa.string()) if labels is None else _class_names(store, labels)


def _class_names(store: RankedStore, codes: Int[np.ndarray, " row"]) -> pa.Array[Any]:
    """Names where the manifest knows them, numbers otherwise, null for -1."""
    known = store.manifest.label_names
    if known is None or codes.max() >= len(known):
        return pa.array(codes.astype(str), pa.string(), mask=codes < 0)
    names = np.array([*known, ""], dtype=object)  # -1 takes the last
    return pa.array(names[codes], pa.string(), mask=codes < 0)
