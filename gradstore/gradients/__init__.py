"""The gradient engine: per-example sketches, exact norms, losses and latents of a batch in one pass."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gradstore.gradients.coverage import Coverage

if TYPE_CHECKING:
    from gradstore.gradients.engine import GradientEngine, Gradients

__all__ = ["Coverage", "GradientEngine", "Gradients"]


def __getattr__(name: str) -> Any:
    if name not in ("GradientEngine", "Gradients"):
        raise AttributeError(f"module 'gradstore.gradients' has no attribute {name!r}")
    return getattr(import_module("gradstore.gradients.engine"), name)  # loads torch, which coverage does not need
