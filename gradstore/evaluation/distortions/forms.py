"""What examples are taken for, and the range that their values keep to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from gradstore.errors import ShapeError

Examples = NDArray[Any]
Distortion = Callable[[Examples, np.random.Generator], Examples]
"""One example to a spoilt one."""
Make = Callable[[Examples, np.random.Generator], Distortion]
"""All examples to what spoils one of them."""
Form = Literal["image", "series", "table", "tokens"]

_BYTE = np.dtype(np.uint8)


def form_of(example_shape: tuple[int, ...], dtype: np.dtype[Any]) -> Form:
    """What examples of this shape and dtype are taken for.

    One axis: whole numbers other than bytes are tokens, all else is a row of a table. Two axes of floats are [steps,
    channels]. Everything else is an image, its last two axes the height and the width.

    Raises:
        ShapeError: no numbers, or an example without any.

    >>> form_of((28, 28), np.dtype(np.uint8)), form_of((140, 1), np.dtype(np.float32))
    ('image', 'series')
    """
    if dtype.kind not in "iuf" or not example_shape or min(example_shape) < 1:
        raise ShapeError(
            f"Examples of {dtype} {list(example_shape)} cannot be contaminated; expected bytes, whole numbers or "
            "floats, at least one an example. Give them as [N, ...], such as examples.astype('float32')."
        )
    if len(example_shape) == 1:
        return "table" if dtype.kind == "f" or dtype == _BYTE else "tokens"
    return "series" if len(example_shape) == 2 and dtype.kind == "f" else "image"


def value_range(examples: Examples) -> tuple[Any, Any]:
    """Lowest and highest value: 0 and 255 of bytes, whatever the examples hold; of others, what they do hold."""
    if examples.dtype == _BYTE:
        return np.uint8(0), np.uint8(255)
    return examples.min(), examples.max()


def converter(examples: Examples) -> Callable[[Float64[np.ndarray, "..."]], Examples]:
    """Numbers as these examples could hold them: rounded where they are whole, cut off where their range ends.

    Why floats within 0..1 stay there: such data are modelled as probabilities, and one value outside would have all of
    them modelled otherwise (`gradstore.models.likelihood`).
    """
    dtype = examples.dtype
    if dtype.kind != "f":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        return lambda values: np.clip(np.rint(values), low, high).astype(dtype)
    within_unit = examples.min() >= 0 and examples.max() <= 1
    bounds = (0.0, 1.0) if within_unit else (float(np.finfo(dtype).min), float(np.finfo(dtype).max))
    return lambda values: np.clip(values, *bounds).astype(dtype)
