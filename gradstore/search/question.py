"""What is asked, in the form that the scan multiplies with.

    score(q, x) = sum_t a_t(q) <u_t(q), u_t(x)> b_t(x)          (the weights: `gradstore.search.weights`)

Why two precisions. A float32 matrix product rounds differently for other block sizes and batch sizes, so equal
rows would get unequal scores and the order of near ties would depend on how the work was cut. Yet float64 costs
twice as much. So float32 *screens*: a row whose score plus its worst rounding error stays below the k-th best is
out, for certain. The few that remain are *settled* in float64, where the product is exact: stored values are
float16, hence multiples of 2^-24; queries are rounded to that grid (an error of 2^-25 a coordinate), where they are
still float32 numbers; products are multiples of 2^-48, and their partial sums stay below 32 because rows have norm
about 1, so all of them fit into 53 bits and no order of summation rounds. What is then left, one multiplication by
weights a checkpoint, is done element by element.

Screening vectors are A(q) = [a_t(q) u_t(q)]_t divided by |A(q)|: no gradient is too large or small for float32, and
by Cauchy–Schwarz a rounding error is at most `rounding` times the length of the row, whatever the query.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from gradstore.errors import QueryError
from gradstore.search.rows import QuerySketches
from gradstore.search.weights import inverse

Reduce = Literal["mean"]

_GRID = 2.0**24


@dataclass(frozen=True, eq=False)
class Asked:
    """Queries as directions and weights, before anything is rounded."""

    units: Float32[np.ndarray, "checkpoint query d_sketch"]
    weights: Float64[np.ndarray, "checkpoint query"]
    """a_t(q)"""

    @classmethod
    def of(
        cls, queries: QuerySketches, weights: Float64[np.ndarray, "checkpoint query"], reduce: Reduce | None
    ) -> Asked:
        """One question a query, or with `reduce` a single one whose score is the mean of theirs.

        Raises:
            QueryError: an unknown reduce, or the mean over no query.
        """
        if reduce is None:
            return cls(queries.unit, weights)
        if reduce != "mean":
            raise QueryError(f"reduce={reduce!r} is unknown; use 'mean', or leave it out.")
        if len(queries) == 0:
            raise QueryError("There is no query to take the mean over. Give at least one.")
        mean = np.stack([a @ u.astype(np.float64) for a, u in zip(weights, queries.unit, strict=True)]) / len(queries)
        lengths = np.linalg.norm(mean, axis=1)
        units = (mean * inverse(lengths)[:, None]).astype(np.float32)
        return cls(units[:, None], lengths[:, None])


class Question:
    """Queries on the device, ready for the scan."""

    def __init__(self, asked: Asked, device: torch.device | str) -> None:
        on_grid = np.stack([_on_grid(units) for units in asked.units])
        lengths = np.linalg.norm(on_grid.astype(np.float64), axis=2) if on_grid.size else np.zeros(on_grid.shape[:2])
        reach = np.linalg.norm(asked.weights * lengths, axis=0)
        relative = (asked.weights * inverse(reach)).astype(np.float32)
        self.units: Float32[Tensor, "checkpoint query d_sketch"] = torch.from_numpy(on_grid).to(device)
        self.weights: Float64[Tensor, "checkpoint query"] = torch.from_numpy(asked.weights).to(device)
        self.screen: Float32[Tensor, "checkpoint query d_sketch"] = self.units * torch.from_numpy(relative).to(
            device
        ).unsqueeze(2)
        self.reach: Float64[Tensor, " query"] = torch.from_numpy(np.where(reach > 0, reach, 1.0)).to(device)
        """|A(q)|, which the screening vectors are divided by"""
        self.is_zero: Bool[Tensor, " query"] = torch.from_numpy(reach == 0).to(device)
        self.rounding = _rounding(len(on_grid) * on_grid.shape[2])

    def __len__(self) -> int:
        return len(self.reach)


def _on_grid(units: Float32[np.ndarray, "query d_sketch"]) -> Float32[np.ndarray, "query d_sketch"]:
    return np.asarray(np.round(units.astype(np.float64) * _GRID) / _GRID, dtype=np.float32)


def _rounding(n_terms: int) -> float:
    """Worst error of a screening score, relative to the length of the row (Higham 2002, section 3.1).

    A dot product of n terms errs by at most n units in the last place, the weights and lengths by a few more. Where
    the user lets torch use TF32 or bfloat16, both factors are rounded first.
    """
    rounded_inputs = {"highest": 0.0, "high": 2.0**-10, "medium": 2.0**-7}[torch.get_float32_matmul_precision()]
    return 1.01 * (rounded_inputs + (n_terms + 16) * 2.0**-24)
