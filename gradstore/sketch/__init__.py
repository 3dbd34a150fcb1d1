"""Random projections of gradients: linear, seeded, `E<Sx, Sy> = <x, y>`; one a file."""

from gradstore.sketch.count_sketch import CountSketch, SketchBuffer, matrix_shape

__all__ = ["CountSketch", "SketchBuffer", "matrix_shape"]
