"""The gradient engine: per-example sketches, exact norms, losses and latents of a batch in one pass."""

from gradstore.gradients.coverage import Coverage
from gradstore.gradients.engine import GradientEngine, Gradients

__all__ = ["Coverage", "GradientEngine", "Gradients"]
