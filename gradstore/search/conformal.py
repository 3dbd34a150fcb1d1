"""Conformal credibility: how usual a label is among an example's neighbours, as examples go.

    nonconformity(x, j) = number of the k nearest of x, over all representations, whose label is not j
    p_j(x)              = (1 + number of calibration examples at least as nonconforming, each under its own label)
                          / (1 + number of calibration examples)
    prediction = the label of the largest p    credibility = that p    confidence = 1 - the second largest p

A low credibility says: under no label do this example's neighbours agree with it as those of other examples agree
with them. Where x and the calibration examples are exchangeable, P(p_y(x) <= a) <= a for the true label y.

Source: Papernot & McDaniel 2018, Deep k-Nearest Neighbors, arXiv:1803.04765. How this departs from the paper:

- The representations are the latents at several checkpoints, for that is what a store holds; the paper's are the
  layers of one network. A task whose `latent` puts several layers side by side compares them in one distance.
- Neighbours are searched exactly, by l2 or cosine distance; the paper hashes, for cosine.
- p-values count the example itself, the "1 +": without it the bound above does not hold, and p may be 0.
- The paper calibrates on examples that the model never saw. Those of a store are mostly its training data: calibrate
  on held-out rows by their ids where there are some. For calibration examples by share, what is new to the model
  looks less credible than it would beside other new examples.
- Calibration examples are nobody's neighbour, not their own either; one that is asked about is left out of its own
  comparison.
- Labels are pooled: a class that no calibration example has gets p-values like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float, Float64, Int, Int64

from gradstore.errors import QueryError
from gradstore.search.filters import Filter
from gradstore.search.latent import nearest_latents
from gradstore.search.searchable import chosen_checkpoints
from gradstore.search.space import Metric, PointRows

AT_MOST = 750
"""calibration examples drawn; the paper's number"""
_SHARE = 0.1
_NOTHING = -1


@dataclass(frozen=True, eq=False)
class Credibility:
    """What is known of the labels of some queries; rows in their order."""

    p_values: Float64[np.ndarray, "query label"]
    nonconformity: Int64[np.ndarray, "query label"]

    @property
    def predicted(self) -> Int64[np.ndarray, " query"]:
        """The label of the largest p-value; among equals the one that conforms best, then the lower."""
        return np.asarray(np.lexsort((self.nonconformity, -self.p_values), axis=1)[:, 0])

    @property
    def credibility(self) -> Float64[np.ndarray, " query"]:
        """Its p-value, above 0 and at most 1."""
        return np.asarray(self.p_values.max(axis=1))

    @property
    def confidence(self) -> Float64[np.ndarray, " query"]:
        """1 - the second largest p-value; 1 where there is one label only."""
        if self.p_values.shape[1] == 1:
            return np.ones(len(self.p_values))
        return np.asarray(1.0 - np.partition(self.p_values, -2, axis=1)[:, -2])


@dataclass(frozen=True, eq=False)
class Voters:
    """Examples with labels, and those of them kept apart for calibration."""

    labels: Int[np.ndarray, " example"]
    """class of each, -1 for none: those have no say"""
    n_labels: int
    calibration: Int64[np.ndarray, " calibration"]
    """rows, ascending"""

    @property
    def neighbours(self) -> Filter:
        """Who may be found: examples with a label, outside of the calibration."""
        allowed = self.labels >= 0
        allowed[self.calibration] = False
        return Filter(allowed, "leaving out calibration and unlabelled examples")

    @classmethod
    def draw(
        cls,
        labels: Int[np.ndarray, " example"],
        n_labels: int,
        calibration: float | Sequence[int] | Int[np.ndarray, " row"] | None = None,
        seed: int = 0,
    ) -> Voters:
        """Set calibration examples apart.

        Args:
            calibration: a share of the labelled examples, drawn by `seed`, or rows; by default a tenth, at most 750.

        Raises:
            QueryError: a share that leaves no example on one side, or a row without a label.
        """
        labelled = np.flatnonzero(labels >= 0)
        if calibration is None or isinstance(calibration, float | int):
            chosen = _drawn(labelled, calibration, seed)
        else:
            chosen = np.unique(np.asarray(calibration, dtype=np.int64))
        without = chosen[labels[chosen] < 0]
        if without.size or not chosen.size or len(chosen) == len(labelled):
            found = f"row {without[0]} has no label" if without.size else f"{len(chosen)} of {len(labelled)} were named"
            raise QueryError(
                f"Calibration needs examples with labels, and must leave others to be neighbours; {found}."
            )
        return cls(labels, n_labels, chosen)


def conformal_credibility(
    rows: PointRows,
    queries: Float[np.ndarray, "checkpoint query d_latent"],
    voters: Voters,
    k: int,
    *,
    checkpoints: Sequence[int] | None = None,
    metric: Metric = "l2",
    own_rows: Int64[np.ndarray, " query"] | None = None,
    device: torch.device | str = "cpu",
) -> Credibility:
    """P-values of every label for every query.

    Args:
        rows: the store.
        queries: latents of the queries at each of the checkpoints.
        voters: labels, and which examples calibrate.
        k: neighbours in each representation; the paper takes 75.
        checkpoints: the representations; all by default.
        own_rows: the queries' own rows, which do not vote for themselves; -1 for a query from elsewhere.

    Raises:
        QueryError: k that the voters cannot answer, an unknown metric or checkpoint.
        ShapeError: queries of another dimension than the stored latents.
    """
    chosen = chosen_checkpoints(checkpoints, rows.n_checkpoints)
    own = np.full(queries.shape[1], _NOTHING) if own_rows is None else own_rows
    asked, calibrating = (
        _votes(rows, latents, voters, k, chosen, metric, exclude, device)
        for latents, exclude in (
            (queries, own),
            (np.stack([rows.latent_rows(t, voters.calibration) for t in chosen]), voters.calibration),
        )
    )
    largest = k * len(chosen)
    scores = np.take_along_axis(largest - calibrating, voters.labels[voters.calibration, None].astype(np.int64), 1)[
        :, 0
    ]
    return Credibility(p_values(largest - asked, scores, _scores_of_own(own, voters, scores)), largest - asked)


def p_values(
    nonconformity: Int64[np.ndarray, "query label"],
    calibration: Int64[np.ndarray, " calibration"],
    own: Int64[np.ndarray, " query"] | None = None,
) -> Float64[np.ndarray, "query label"]:
    """(1 + number of calibration scores >= nonconformity) / (1 + number of calibration scores).

    Args:
        own: the score of a query that is among the calibration scores, left out for it; -1 for one that is not.

    >>> p_values(np.array([[0, 2, 9]]), np.array([0, 1, 2, 3])).tolist()
    [[1.0, 0.6, 0.2]]
    """
    ordered = np.sort(calibration)
    above = len(ordered) - np.searchsorted(ordered, nonconformity, side="left")
    inside = np.zeros((len(nonconformity), 1), np.int64) if own is None else (own >= 0)[:, None].astype(np.int64)
    itself = 0 if own is None else inside * (own[:, None] >= nonconformity)
    return np.asarray((1 + above - itself) / (1 + len(ordered) - inside))


def credibility_table(
    names: Sequence[str],
    found: Credibility,
    label_names: Sequence[str],
    labels: Sequence[str | None] | None = None,
    p_values: bool = False,
) -> pa.Table:
    """One row a query: query, predicted, credibility, confidence, label; with `p_values` also `p(<label>)`."""
    columns = {
        "query": pa.array(names, pa.string()),
        "predicted": pa.array([label_names[label] for label in found.predicted], pa.string()),
        "credibility": pa.array(found.credibility),
        "confidence": pa.array(found.confidence),
        "label": pa.array([None] * len(names) if labels is None else labels, pa.string()),
    }
    if p_values:
        columns |= {f"p({label})": pa.array(found.p_values[:, j]) for j, label in enumerate(label_names)}
    return pa.table(columns)


def _drawn(labelled: Int64[np.ndarray, " labelled"], share: float | None, seed: int) -> Int64[np.ndarray, " row"]:
    if share is not None and not 0 < share < 1:
        raise QueryError(f"calibration={share} is no share of the examples; give one between 0 and 1, or ids.")
    wanted = round(len(labelled) * (_SHARE if share is None else share))
    count = max(1, wanted if share is not None else min(AT_MOST, wanted))
    return np.sort(np.random.default_rng(seed).choice(labelled, min(count, len(labelled)), replace=False))


def _votes(
    rows: PointRows,
    latents: Float[np.ndarray, "checkpoint query d_latent"],
    voters: Voters,
    k: int,
    checkpoints: Sequence[int],
    metric: Metric,
    exclude: Int64[np.ndarray, " query"],
    device: torch.device | str,
) -> Int64[np.ndarray, "query label"]:
    """How many of the k nearest in each representation have each label, summed over representations."""
    votes = np.zeros((latents.shape[1], voters.n_labels), np.int64)
    for checkpoint, points in zip(checkpoints, latents, strict=True):
        found = nearest_latents(
            rows,
            points,
            k,
            checkpoint=checkpoint,
            metric=metric,
            exclude=exclude.tolist(),
            filter=voters.neighbours,
            device=device,
        )
        owners = np.repeat(np.arange(len(votes)), k)
        np.add.at(votes, (owners, voters.labels[found.indices].reshape(-1)), 1)
    return votes


def _scores_of_own(
    own: Int64[np.ndarray, " query"], voters: Voters, scores: Int64[np.ndarray, " calibration"]
) -> Int64[np.ndarray, " query"]:
    """The calibration score of queries that calibrate, -1 for others."""
    places = np.minimum(np.searchsorted(voters.calibration, own), len(scores) - 1)
    return np.where(voters.calibration[places] == own, scores[places], _NOTHING)
