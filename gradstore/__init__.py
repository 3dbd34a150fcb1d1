"""gradstore: which training examples are bad, and which examples does a prediction rest on?

    >>> import gradstore
    >>> gradstore.__version__.count(".")
    2

`gradstore.open(path)` opens a gradient store; everything heavy (torch, zarr, faiss) is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradstore.api import GradientStore, open
    from gradstore.task import Batch, Noise, Task

__version__ = "0.1.0"
__all__ = ["Batch", "GradientStore", "Noise", "Task", "__version__", "open"]

_HOME = {
    "open": "gradstore.api",
    "GradientStore": "gradstore.api",
    "Task": "gradstore.task",
    "Batch": "gradstore.task",
    "Noise": "gradstore.task",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'gradstore' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
