"""What is compared: the readings of a gradient dot product, as one weight a row; their units and their sign.

With u the unit sketch, n the exact norm and eta_t the learning rate at checkpoint t, every score is

    score(q, x) = sum_t a_t(q) <u_t(q), u_t(x)> b_t(x)

    none      a = eta_t n_t(q)             b = n_t(x)
    cosine    a = eta_t n_t(q) / r(q)      b = n_t(x) / r(x)
    relatif   a = eta_t n_t(q)             b = n_t(x) / r(x)        r(x) = sqrt(sum_t eta_t n_t(x)^2)

`none` is TracIn (Pruthi et al. 2020, arXiv:2002.08484); `relatif` divides by the root of the training example's
own self-influence (Barshan et al. 2020, arXiv:2003.11630), so that rows with large gradients do not answer every
query. A row without a gradient has weight 0, never NaN. The sums run over the checkpoints that are asked for.

Sign, of all: positive where a gradient step on x lowers the query's loss (a proponent), negative where it raises it
(an opponent), 0 where it leaves it alone, to first order.

Units. `none`: of loss, by how much one visit of x at each checkpoint's learning rate lowered the query's loss; a loss
summed over pixels gives scores a thousand times one averaged over them. `relatif`: of the square root of loss; compare
it within a query's list. `cosine`: none, between -1 and 1 but for the sketch's error of about 1/sqrt(d_sketch).

Any reading may be taken in the metric of a preconditioner (`gradstore.search.precondition`): <g, g'> becomes
g^T M_t g', r(x) the root of sum_t eta_t g_t(x)^T M_t g_t(x), and the unit of `none` that of a learning rate.

A reading is linear in what is asked, whatever the normalisation: the mean score over a set of queries is the score of
one asked vector, sum_q a_t(q) u_t(q) / n_queries (`gradstore.search.question`).
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
    roots: Float64[np.ndarray, " query"] | None = None,
) -> Float64[np.ndarray, "checkpoint query"]:
    """a_t(q) of the module's table; `roots` are r(q) where a preconditioner gives them."""
    weights = learning_rates[:, None] * norms.astype(np.float64)
    if normalise != "cosine":
        return weights
    return np.asarray(weights * inverse(root_self_influence(norms, learning_rates) if roots is None else roots))


def example_weights(
    norms: Float[np.ndarray, "checkpoint row"],
    learning_rates: Float[np.ndarray, " checkpoint"],
    normalise: Normalise,
    roots: Float64[np.ndarray, " row"] | None = None,
) -> Float64[np.ndarray, "checkpoint row"]:
    """b_t(x) of the module's table; `roots` are r(x) where a preconditioner gives them."""
    weights = norms.astype(np.float64)
    if normalise == "none":
        return weights
    return np.asarray(weights * inverse(root_self_influence(norms, learning_rates) if roots is None else roots))


def inverse(values: Float64[np.ndarray, " row"]) -> Float64[np.ndarray, " row"]:
    """1 / value, and 0 where the value is 0."""
    return np.asarray(np.divide(1.0, values, out=np.zeros_like(values), where=values > 0))
