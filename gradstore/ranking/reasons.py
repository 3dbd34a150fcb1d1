"""Why an example is where it is, in words: the signals that stand out for it.

At most three, the most extreme first; a signal stands out when it is above 95 % of the examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from jaxtyping import Float, Int
from numpy.typing import NDArray

from gradstore.ranking.combine import percent_text, percentile
from gradstore.ranking.signals import Signal, signal_named

STANDS_OUT = 95.0
"""Percentile from which a signal is named in the reason."""

_MOST = 3
_CHUNK = 65536


def reasons(signals: Mapping[str, NDArray[Any]], order: Int[np.ndarray, " row"]) -> pa.ChunkedArray[Any]:
    """One sentence an example.

    Args:
        signals: name -> [N] in store order.
        order: the examples to give reasons for, in this order.

    Raises:
        UnknownSignalError: a name that is no signal.
    """
    known = [signal_named(name) for name in signals]
    values = list(signals.values())
    percentiles = [percentile(of_one) for of_one in values]
    chunks = [
        pa.array(_sentences(known, _rows(values, part), _rows(percentiles, part)), pa.string())
        for part in np.split(order, range(_CHUNK, len(order), _CHUNK))
    ]
    return pa.chunked_array(chunks)


def _rows(signals: list[NDArray[Any]], part: Int[np.ndarray, " row"]) -> Float[np.ndarray, "row signal"]:
    return np.stack([values[part] for values in signals], axis=1).astype(np.float64)


def _sentences(
    signals: list[Signal], values: Float[np.ndarray, "row signal"], percentiles: Float[np.ndarray, "row signal"]
) -> list[str]:
    most_extreme = np.argsort(-percentiles, axis=1, kind="stable")[:, :_MOST].tolist()
    rows = zip(most_extreme, values.tolist(), percentiles.tolist(), strict=True)
    return [_sentence(signals, *row) for row in rows]


def _sentence(signals: list[Signal], columns: list[int], values: list[float], percentiles: list[float]) -> str:
    loud = [column for column in columns if percentiles[column] >= STANDS_OUT]
    if loud:
        return "; ".join(signals[column].reason(values[column], percentiles[column]) for column in loud)
    title, above = signals[columns[0]].title, percent_text(percentiles[columns[0]])
    return f"nothing stands out: its highest signal is {title}, above {above} % of examples"
