"""Leverage and its kin: how few other examples push the model where this one does.

The whitening is `gradstore.influence`'s. Damping is 1e-3 of the mean variance of a sketch's numbers, which is a rule
and no choice by the answer: detection is flat from 1e-2 down to 1e-5 (measured) and falls above.
"""

from __future__ import annotations

from gradstore.influence import leverage, robust
from gradstore.ranking.signals.base import Computation, Signal, Values
from gradstore.ranking.signals.trusted import FIRST_ROUND

_COST = "two passes over the sketches, N k² operations a checkpoint"
_BOTH = ("sketches", "norms")


def of_gradients(computation: Computation) -> Values:
    """Summed over checkpoints."""
    return leverage.leverage(computation.store)


def of_directions(computation: Computation) -> Values:
    """Of rows of length 1, summed over checkpoints."""
    return leverage.unit_leverage(computation.store)


def of_all_checkpoints(computation: Computation) -> Values:
    """Of all checkpoints' sketches side by side."""
    return leverage.joint_leverage(computation.store)


def robust_of_gradients(computation: Computation) -> Values:
    """Against the trusted others, summed over checkpoints."""
    return robust.robust_leverage(computation.store, computation.trusted)


def robust_of_directions(computation: Computation) -> Values:
    """The same of rows of length 1."""
    return robust.robust_unit_leverage(computation.store, computation.trusted)


LEVERAGE = Signal(
    name="leverage",
    title="leverage",
    unit="",
    meaning="at single checkpoints few others push the model that way",
    needs=_BOTH,
    compute=of_gradients,
    passes=2,
    cost=_COST,
)
UNIT_LEVERAGE = Signal(
    name="unit_leverage",
    title="unit leverage",
    unit="",
    meaning="its gradient points where few others do, however small it is",
    needs=("sketches",),
    compute=of_directions,
    passes=2,
    cost=_COST,
)
JOINT_LEVERAGE = Signal(
    name="joint_leverage",
    title="joint leverage",
    unit="",
    meaning="over all of training few others push the model in its direction",
    needs=_BOTH,
    compute=of_all_checkpoints,
    passes=2,
    cost="two passes over the sketches, N (C k)² operations",
    on_request=True,
)
ROBUST_LEVERAGE = Signal(
    name="robust_leverage",
    title="robust leverage",
    unit="",
    meaning="few trusted examples push the model in its direction",
    needs=_BOTH,
    compute=robust_of_gradients,
    passes=2,
    cost=_COST,
    requires=FIRST_ROUND,
)
ROBUST_UNIT_LEVERAGE = Signal(
    name="robust_unit_leverage",
    title="robust unit leverage",
    unit="",
    meaning="its gradient points where few trusted examples' do, however small it is",
    needs=("sketches",),
    compute=robust_of_directions,
    passes=2,
    cost=_COST,
    requires=FIRST_ROUND,
)
SIGNALS = (LEVERAGE, UNIT_LEVERAGE, JOINT_LEVERAGE, ROBUST_LEVERAGE, ROBUST_UNIT_LEVERAGE)
