"""What the numbers of an array are: the kinds of array that a store can have."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """What the numbers of an array are: one, or a row of them, an example and checkpoint."""

    name: str
    dtype: str
    """of the numbers; of sketches where the manifest says nothing else"""
    width: str | None
    """the dimension of a row's numbers"""
    encoding: str
    description: str
    of_set: bool
    """whether every set of parameters has its own"""


SKETCHES = Kind(
    "sketches",
    "<f2",
    "d_sketch",
    "gradient-sketches",
    "gradient sketches, each divided by its exact gradient norm",
    of_set=True,
)
SCALES = Kind(
    "scales",
    "<f4",
    None,
    "gradient-sketch-scales",
    "what each row of int8 sketches is multiplied by",
    of_set=True,
)
NORMS = Kind("norms", "<f4", None, "gradient-norms", "exact gradient norms over the tracked parameters", of_set=True)
LAYER_NORMS = Kind(
    "layer_norms", "<f4", "layer", "gradient-layer-norms", "exact gradient norms over each layer", of_set=True
)
DRAW_NORMS = Kind(
    "draw_norms",
    "<f4",
    None,
    "gradient-draw-norms",
    "root of the mean over the Monte Carlo draws of each draw's squared gradient norm",
    of_set=True,
)
LOSSES = Kind("losses", "<f4", None, "losses", "loss of each example at each checkpoint", of_set=False)
LATENTS = Kind("latents", "<f4", "d_latent", "latents", "latent of each example at each checkpoint", of_set=False)
PREDICTIONS = Kind(
    "predictions",
    "<f2",
    "class",
    "predictions",
    "log-probability of each class, for each example at each checkpoint",
    of_set=False,
)
KINDS = (SKETCHES, SCALES, NORMS, LAYER_NORMS, DRAW_NORMS, LOSSES, LATENTS, PREDICTIONS)
