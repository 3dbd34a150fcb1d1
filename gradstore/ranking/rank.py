"""The ranking: every example, the most suspicious first, with its reason in words.

Computing signals and ordering by them are apart (`compute_signals`, `rank_table`), so that signals, which take a
pass over the store, can be kept and ordered in another way for nothing. Equal scores stay in store order: the same
store always gives the same table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from numpy.typing import NDArray

from gradstore.errors import QueryError, ShapeError, UnknownSignalError
from gradstore.ranking.combine import DEFAULT_COMBINATION, percentile, require_finite, tail_sum
from gradstore.ranking.reasons import reasons
from gradstore.ranking.signals import ALL_SIGNALS, SignalStore, Values, compute_signals, signals_of

if TYPE_CHECKING:
    from gradstore.store.manifest import Manifest

COMBINED = "combined"
"""Ranking by the tail-sum of `DEFAULT_COMBINATION`."""

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


def signal_names(store: SignalStore, signals: Sequence[str] | None, by: str) -> list[str]:
    """The signals to compute in order to show `signals` (None: all that the store has) ranked by `by`."""
    shown = signals_of(store) if signals is None else list(signals)
    return list(dict.fromkeys([*shown, *_needed_by(by)]))


def rank_table(store: RankedStore, signals: Mapping[str, Values], by: str = COMBINED) -> pa.Table:
    """The ranking that computed signals give.

    Args:
        store: who the examples are.
        signals: name -> [N] in store order, as `compute_signals` returns them.
        by: `combined`, or the name of one of `signals`.

    Returns:
        One row an example, sorted by rank: id, path (null without one), label (its name where known), rank (1 = most
        suspicious), score, percentile (share of examples with a lower score), every signal, reason.

    Raises:
        UnknownSignalError: `by` or a key of `signals` is no signal.
        QueryError: a signal that `by` needs is not among `signals`, or is not finite.
        ShapeError: not one number an example.
    """
    _require_one_number_an_example(store, signals)
    scores = _scores(signals, by)
    order = np.argsort(-scores, kind="stable")
    columns = {
        **{name: column.take(order) for name, column in _identities(store).items()},
        "rank": pa.array(np.arange(1, len(order) + 1)),
        "score": pa.array(scores[order]),
        "percentile": pa.array(percentile(scores)[order]),
        **{name: pa.array(values[order].astype(np.float32)) for name, values in signals.items()},
        "reason": reasons(signals, order),
    }
    return pa.table(columns)


def _needed_by(by: str) -> tuple[str, ...]:
    if by == COMBINED:
        return DEFAULT_COMBINATION
    if by not in ALL_SIGNALS:
        raise UnknownSignalError(f"Cannot rank by {by!r}. Rank by one of: {COMBINED}, {', '.join(ALL_SIGNALS)}.")
    return (by,)


def _scores(signals: Mapping[str, Values], by: str) -> Float[np.ndarray, " example"]:
    needed = _needed_by(by)
    missing = [name for name in needed if name not in signals]
    if missing:
        raise QueryError(
            f"Ranking by {by} needs {', '.join(needed)}; {', '.join(missing)} is missing from {', '.join(signals)}. "
            "Compute it too, or rank by a signal that is there."
        )
    chosen = {name: signals[name] for name in needed}
    return tail_sum(chosen) if by == COMBINED else np.asarray(chosen[by], dtype=np.float64)


def _require_one_number_an_example(store: RankedStore, signals: Mapping[str, Values]) -> None:
    for name, values in signals.items():
        if values.shape != (store.n_examples,):
            raise ShapeError(
                f"Signal {name!r} has shape {values.shape}; the store has {store.n_examples} examples. "
                "Compute the signals from this store."
            )
    require_finite(signals, name_of=lambda row: repr(store.ids(row, row + 1)[0]))


def _identities(store: RankedStore) -> dict[str, pa.ChunkedArray[Any]]:
    """Ids, paths and label names in store order, as Arrow strings: a Python string an example would be far larger."""
    return {
        "id": _strings(store.n_examples, store.ids),
        "path": _strings(store.n_examples, store.paths),
        "label": pa.chunked_array([_label_names(store)]),
    }


def _strings(n_examples: int, read: Callable[[int, int], Sequence[str | None]]) -> pa.ChunkedArray[Any]:
    starts = range(0, n_examples, _NAMED_ROWS)
    return pa.chunked_array([pa.array(read(i, min(i + _NAMED_ROWS, n_examples)), pa.string()) for i in starts])


def _label_names(store: RankedStore) -> pa.Array[Any]:
    """Names where the manifest knows them, numbers otherwise, null without a label."""
    labels, known = store.labels(), store.manifest.label_names
    if labels is None:
        return pa.nulls(store.n_examples, pa.string())
    if known is None or labels.max() >= len(known):
        return pa.array(labels.astype(str), pa.string(), mask=labels < 0)
    names = np.array([*known, ""], dtype=object)  # -1, no label, takes the last
    return pa.array(names[labels], pa.string(), mask=labels < 0)
