"""What the model says of the label that an example was given, as it learned.

A model learns what most labels say before it learns the wrong ones by heart. So what counts is the mean over
checkpoints, early ones among them, and not what the trained model says (Arazo et al. 2019; Pleiss et al. 2020).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float64, Int64

from gradstore.ranking.signals.base import Computation, Signal, SignalStore, Values
from gradstore.ranking.signals.given_labels import (
    Block,
    given_labels,
    largest_other,
    mean_log_probabilities,
    n_classes_of,
    of_given,
    unlabelled_lowest,
)


def label_surprise(computation: Computation) -> Values:
    """-log p(label), mean over checkpoints."""
    store = computation.store
    labels, found = given_labels(store), np.zeros(store.n_examples)
    for rows, log_probabilities in mean_log_probabilities(store):
        found[rows] = -of_given(log_probabilities, labels[rows])
    return unlabelled_lowest(found, labels)


def label_margin(computation: Computation) -> Values:
    """The area under the margin, negated: log p(best other class) - log p(label), means over checkpoints."""
    store = computation.store
    labels, found = given_labels(store), np.zeros(store.n_examples)
    for rows, log_probabilities in mean_log_probabilities(store):
        found[rows] = largest_other(log_probabilities, labels[rows]) - of_given(log_probabilities, labels[rows])
    return unlabelled_lowest(found, labels)


def confident_doubt(computation: Computation) -> Values:
    """By how much more than usual for its class another class is believed, less the same of its label.

    Usual for a class: the mean probability it gets of the examples that carry its label (confident learning's
    threshold, Northcutt et al. 2021).
    """
    store = computation.store
    labels, found = given_labels(store), np.zeros(store.n_examples)
    usual = _usual(store, labels)
    for rows, probabilities in _mean_probabilities(store):
        excess = probabilities - usual
        found[rows] = largest_other(excess, labels[rows]) - of_given(excess, labels[rows])
    return unlabelled_lowest(found, labels)


def _mean_probabilities(store: SignalStore) -> Iterator[Block]:
    """Geometric means over checkpoints, scaled to sum 1."""
    for rows, log_probabilities in mean_log_probabilities(store):
        probabilities = np.exp(log_probabilities)
        yield rows, probabilities / probabilities.sum(axis=1, keepdims=True)


def _usual(store: SignalStore, labels: Int64[np.ndarray, " example"]) -> Float64[np.ndarray, " class"]:
    """[n_classes]; 1 for a class that nobody is labelled as."""
    total, count = np.zeros(n_classes_of(store)), np.zeros(n_classes_of(store))
    for rows, probabilities in _mean_probabilities(store):
        known = labels[rows] >= 0
        np.add.at(total, labels[rows][known], of_given(probabilities, labels[rows])[known])
        np.add.at(count, labels[rows][known], 1.0)
    return np.divide(total, count, out=np.ones_like(total), where=count > 0)


_NEEDS = ("labels", "predictions")
_COST = "one pass over the predictions"
LABEL_SURPRISE = Signal(
    name="label_surprise",
    title="surprise at the label",
    unit="nats",
    meaning="in all of training the model hardly believed its label",
    needs=_NEEDS,
    compute=label_surprise,
    passes=0,
    cost=_COST,
)
LABEL_MARGIN = Signal(
    name="label_margin",
    title="margin against the label",
    unit="nats",
    meaning="in all of training the model preferred another label",
    needs=_NEEDS,
    compute=label_margin,
    passes=0,
    cost=_COST,
)
CONFIDENT_DOUBT = Signal(
    name="confident_doubt",
    title="confident doubt",
    unit="probability",
    meaning="the model believes another label more than it usually does, and its own less",
    needs=_NEEDS,
    compute=confident_doubt,
    passes=0,
    cost="two passes over the predictions",
    on_request=True,
)
SIGNALS = (LABEL_SURPRISE, LABEL_MARGIN, CONFIDENT_DOUBT)
