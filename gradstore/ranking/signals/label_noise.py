"""How likely a label is wrong, by a model of how labels go wrong: confusions that are frequent are believed sooner.

A label z of an example whose class is y is given with probability T[y, z], one matrix for the data set. What is
believed of the class, b(y | x), comes from neighbours alone, sharpened to p(y | x) ~ b^tau. Both T and tau are those
under which the given labels are most likely,

    sum over examples of log sum_y T[y, z] p(y | x)

by expectation-maximisation for T, at each tau of a grid. Why sharpened: an average over neighbours is less sure than
it should be, and mistakes every example between two classes for noise. Why neighbours alone: the model has seen z, and
would explain every label as right. An example's odds are then

    log sum_{y != z} T[y, z] p(y | x)  -  log T[z, z] p(z | x)

with p from neighbours and the model's own predictions, both. The odds of all examples say, too, how many labels are
wrong: .99 to 1 of the true number on pen strokes, .84 on digits, .8 to .9 on clothes and .7 where clothes carry the
label of the class most like theirs, for what the model finds plausible cannot be counted. Found in the first 10 % / 20
%, 5,000 clothes mislabelled so: .73/.94, by mean loss .61/.87.

Source: the noise model of Dawid & Skene 1979 with one rater; confident learning (Northcutt et al. 2021) counts where
this integrates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from gradstore.ranking.signals.base import Computation, Signal, SignalStore, Values
from gradstore.ranking.signals.given_labels import (
    given_labels,
    mean_log_probabilities,
    of_given,
    unlabelled_lowest,
)

SHARPNESS = (1.0, 1.25, 1.5, 1.75, 2.0, 2.25, 2.5, 3.0, 4.0)
_ROUNDS = 40
_FITTED, _SEED = 20_000, 0
_FIRST_RATE = 0.1
_PRIOR = 1.0
"""Examples' worth of prior in each row of T, spread over all classes."""
_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """How labels go wrong in a data set."""

    transitions: Float64[np.ndarray, "true given"]
    """T: rows sum to 1"""
    sharpness: float
    """tau"""

    def log_odds(
        self, log_beliefs: Float[np.ndarray, "row class"], labels: Int64[np.ndarray, " row"]
    ) -> Float64[np.ndarray, " row"]:
        """That each label is wrong, against right; the lowest there is with one class."""
        joint = _sharpened(log_beliefs, self.sharpness) * self.transitions.T[labels]
        right = of_given(joint, labels)
        wrong = np.maximum(joint.sum(axis=1) - right, 0.0)
        return np.asarray(np.log(wrong + _TINY) - np.log(right + _TINY))


def fit_noise(log_beliefs: Float[np.ndarray, "row class"], labels: Int64[np.ndarray, " row"]) -> NoiseModel:
    """The noise under which labels are most likely, given what is believed of each example without its own label."""
    fits = [(*_fit(_sharpened(log_beliefs, tau), labels), tau) for tau in SHARPNESS]
    _, transitions, sharpness = max(fits, key=lambda fit: fit[0])
    return NoiseModel(transitions, sharpness)


def label_error(computation: Computation) -> Values:
    """Log-odds that the label is wrong."""
    store, beliefs = computation.store, computation.neighbour_beliefs
    labels, found = given_labels(store), np.zeros(store.n_examples)
    chosen = _chosen(labels)
    if not len(chosen):
        return found
    noise = fit_noise(beliefs[chosen], labels[chosen])
    for rows, log_probabilities in mean_log_probabilities(store):
        both = (_normalised(log_probabilities) + beliefs[rows]) / 2.0
        found[rows] = noise.log_odds(both, labels[rows])
    return unlabelled_lowest(found, labels)


def neighbour_doubt(computation: Computation) -> Values:
    """-log of what neighbours believe of the label."""
    labels = given_labels(computation.store)
    return unlabelled_lowest(-of_given(computation.neighbour_beliefs, labels).astype(np.float64), labels)


def suggested_classes(store: SignalStore) -> Int64[np.ndarray, " example"]:
    """[N] the class that the model believes most, mean over checkpoints, other than the label; -1 with one class."""
    labels, found = given_labels(store), np.full(store.n_examples, -1)
    for rows, log_probabilities in mean_log_probabilities(store):
        if log_probabilities.shape[1] > 1:
            others, known = log_probabilities.copy(), labels[rows] >= 0
            others[known, labels[rows][known]] = -np.inf
            found[rows] = others.argmax(axis=1)
    return found


def _fit(
    p: Float64[np.ndarray, "row class"], labels: Int64[np.ndarray, " row"]
) -> tuple[float, Float64[np.ndarray, "true given"]]:
    """The log-likelihood that expectation-maximisation comes to, and T."""
    n_classes = p.shape[1]
    prior = np.full((n_classes, n_classes), _PRIOR / n_classes)
    transitions = (1.0 - _FIRST_RATE) * np.eye(n_classes) + _FIRST_RATE / n_classes
    for _ in range(_ROUNDS):
        joint = p * transitions.T[labels] + _TINY
        shares = joint / joint.sum(axis=1, keepdims=True)
        counts = prior.copy()
        np.add.at(counts.T, labels, shares)
        transitions = counts / counts.sum(axis=1, keepdims=True)
    likelihood = (p * transitions.T[labels]).sum(axis=1)
    return float(np.log(likelihood + _TINY).mean()), transitions


def _sharpened(log_beliefs: Float[np.ndarray, "row class"], tau: float) -> Float64[np.ndarray, "row class"]:
    """Probabilities ~ b^tau."""
    scaled = tau * log_beliefs.astype(np.float64)
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _normalised(log_probabilities: Float32[np.ndarray, "row class"]) -> Float64[np.ndarray, "row class"]:
    """Log-probabilities that sum to 1, which their means over checkpoints do not."""
    return np.log(_sharpened(log_probabilities, 1.0) + _TINY)


def _chosen(labels: Int64[np.ndarray, " example"]) -> Int64[np.ndarray, " row"]:
    """Labelled examples to fit to: all, or a seeded choice."""
    rows = np.flatnonzero(labels >= 0)
    if len(rows) <= _FITTED:
        return rows
    return np.sort(np.random.default_rng(_SEED).choice(rows, _FITTED, replace=False))


_NEEDS = ("labels", "predictions", "latents")
_COST = "five passes over the latents, 8,192 N C d operations"
NEIGHBOUR_DOUBT = Signal(
    name="neighbour_doubt",
    title="doubt of the neighbours",
    unit="nats",
    meaning="examples near it in latent space hardly speak for its label",
    needs=_NEEDS,
    compute=neighbour_doubt,
    passes=5,
    cost=_COST,
)
LABEL_ERROR = Signal(
    name="label_error",
    title="odds of a label error",
    unit="nats",
    meaning="the model and its neighbours speak for another label, and such mistakes are frequent here",
    needs=_NEEDS,
    compute=label_error,
    passes=5,
    cost=f"{_COST}, once for both",
)
SIGNALS = (NEIGHBOUR_DOUBT, LABEL_ERROR)
