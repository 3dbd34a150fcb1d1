"""Checks of sanity on a store's own gradients, beside what they are in closed form: no error need be planted for them.

They read the whole store a few times, and so are kept with the trials until it changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from gradstore.evaluation.sanity import OwnProponents, SimilarityRate, own_proponent_share, similarity_rate
from gradstore.search.weights import Normalise
from gradstore.store import Store
from gradstore_pipelines.progress import Reporter

_READINGS: tuple[Normalise, ...] = ("none", "cosine")
_BY = {"none": "dot product", "cosine": "cosine"}


@dataclass(frozen=True)
class SanityChecks:
    """What they found."""

    own: OwnProponents
    similarity: Mapping[str, SimilarityRate]
    """by how influence is read; empty without labels"""

    def to_json(self) -> dict[str, Any]:
        return {"own_proponents": asdict(self.own), "similarity": {by: asdict(s) for by, s in self.similarity.items()}}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SanityChecks:
        rates = values["similarity"]
        similarity: dict[str, SimilarityRate] = {by: SimilarityRate(**rates[by]) for by in _READINGS if by in rates}
        return cls(OwnProponents(**values["own_proponents"]), similarity)

    def sentences(self) -> list[str]:
        own = self.own
        return [
            f"Of {own.n_asked:,} examples of the store {_percent(own.dot)} are their own strongest proponent by dot "
            f"product (all would be if gradients were orthogonal, {_percent(own.chance)} if they were parallel), "
            f"{_percent(own.cosine)} by cosine ({_percent(own.cosine_expected)} but for the sketch's error).",
            *(_similar(by, rate) for by, rate in self.similarity.items()),
        ]


def sanity_checks(store: Store, seed: int, device: str, reporter: Reporter) -> SanityChecks:
    """All that the store allows.

    Raises:
        QueryError: no example with a gradient.
        StoreIncompleteError: nothing is done yet.
    """
    with reporter.task("sanity", 1 + len(_READINGS), "checks") as advance:
        own = own_proponent_share(store, seed=seed, device=device)
        advance(1)
        found = dict[str, SimilarityRate]()
        for by in _READINGS:
            rate = similarity_rate(store, seed=seed, normalise=by, device=device)
            found |= {} if rate is None else {by: rate}
            advance(1)
    return SanityChecks(own, found)


def _similar(by: str, rate: SimilarityRate) -> str:
    """Beside what scores by chance have."""
    return (
        f"By {_BY[by]}, {_percent(rate.top)} of the {rate.m} strongest proponents have the example's own label, and "
        f"{_percent(rate.bottom)} of the {rate.m} strongest opponents; by chance {_percent(rate.chance)} would."
    )


def _percent(share: float) -> str:
    """Three digits at most.

    >>> _percent(1.0), _percent(0.1234), _percent(0.000556)
    ('100 %', '12.3 %', '0.0556 %')
    """
    return f"{100 * share:.3g} %"
