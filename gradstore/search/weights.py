"""The three readings of a gradient dot product, as one weight a row.

With u the unit sketch, n the exact norm and eta_t the learning rate at checkpoint t, every score is

    score(q, x) = sum_t a_t(q) <u_t(q), u_t(x)> b_t(x)

    none      a = eta_t n_t(q)             b = n_t(x)
    cosine    a = eta_t n_t(q) / r(q)      b = n_t(x) / r(x)
    relatif   a = eta_t n_t(q)             b = n_t(x) / r(x)        r(x) = sqrt(sum_t eta_t n_t(x)^2)

`none` is TracIn (Pruthi et al. 2020, arXiv:2002.08484); `relatif` divides by the root of the training example's
own self-influence (Barshan et al. 2020, arXiv:2003.11630), so that rows with large gradients do not answer every
query. A row without a gradient has weight 0, never NaN.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Float64

from gradstore.errors import QueryError
from gradstore.influence.tracin import self_influence

Normalise = Literal["none", "cosine", "relatif"]


def check_normalise(normalise: str) -> None:
    """Refuse a reading that does not exist.

    Raises:
        QueryError: not none, cosine or relatif.
    """
    if normalise not in get_args(Normalise):
        raise QueryError(f"normalise={normalise!r} is unknown; use one of {', '.join(get_args(Normalise))}.")


def root_self_influence(
    norms: Float[np.ndarray, "checkpoint row"], learning_rates: Float[np.ndarray, " checkpoint"]
) -> Float64[np.ndarray, " row"]:
    """r(x) = sqrt(sum_t eta_t n_t(x)^2), from exact norms."""
    return np.asarray(np.sqrt(self_influence(norms, learning_rates)))


def query_weights(
    norms: Float[np.ndarray, "checkpoint query"],
    learning_rates: Float[np.ndarray, " checkpoint"],
    normalise: Normalise,
) -> Float64[np.ndarray, "checkpoint query"]:
    """a_t(q) of the module's table."""
    weights = learning_rates[:, None] * norms.astype(np.float64)
    return weights * inverse(root_self_influence(norms, learning_rates)) if normalise == "cosine" else weights


def example_weights(
    norms: Float[np.ndarray, "checkpoint row"],
    learning_rates: Float[np.ndarray, " checkpoint"],
    normalise: Normalise,
) -> Float64[np.ndarray, "checkpoint row"]:
    """b_t(x) of the module's table."""
    weights = norms.astype(np.float64)
    return weights if normalise == "none" else weights * inverse(root_self_influence(norms, learning_rates))


def inverse(values: Float64[np.ndarray, " row"]) -> Float64[np.ndarray, " row"]:
    """1 / value, and 0 where the value is 0."""
    return np.asarray(np.divide(1.0, values, out=np.zeros_like(values), where=values > 0))
